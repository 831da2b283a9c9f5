"""The smart host: decides what to send next, over which connections.

It runs `check_state` when mail arrives, when something falls due, when a connection frees, every `check_interval`, and
when the operator forces it. Destinations take turns, so that one with 500,000 messages does not starve one with 1;
those whose mail goes to the same hosts are one site, and share connections and limits.

The way of a message, 3 of 7: here it is chosen. From engine.queue.contract; on to engine.delivery.relayer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.base.registrable import registrable
from engine.delivery.admission import Admission
from engine.delivery.capacity import Capacity
from engine.delivery.check import Check
from engine.delivery.chooser import Chooser, Chosen
from engine.delivery.clock_steps import ClockSteps
from engine.delivery.housekeeping import Housekeeping
from engine.delivery.limits import Limiting, Limits
from engine.delivery.parts import Parts
from engine.delivery.pressure import Pressure
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.retry import RetryPlan
from engine.delivery.routes import Way
from engine.delivery.site import LONGEST_BLOCK, Common, Site, Terms
from engine.delivery.sites import KEPT, Sites
from engine.delivery.turns import flow_of
from engine.model.claim import Claim, Room
from engine.model.destination import RELAY, Over
from engine.queue.errors import QueueBroken, QueueDamaged, QueueError
from engine.settings.settings import Limit

log = logging.getLogger(__name__)

BATCH = 10  # messages claimed at a time: few are held back by a slow peer, one sync serves several
ENDED_KEPT = 100  # relayers whose transcript can still be read
_CLOSING = 12.0  # seconds; somewhat more than a relayer takes to leave nothing behind


class SmartHost:
    """Manages the relayers: who runs, to which site, with which messages.

    `managed` maps each live relayer to the messages it answers for. `draining`: it stops; `is_drained`: other nodes
    send until an operator has it take part again. What bounds connections, look-ups and the life of
    a connection is in the settings (see Delivery). A site gets its second connection only once its first is
    established, so a dead one costs one at a time.
    """

    def __init__(self, parts: Parts, retries: RetryPlan, *, limits: Sequence[Limit] = ()) -> None:
        queue, clock, delivery = parts.queue, parts.clock, parts.delivery
        self.max_connections = delivery.max_connections
        self.max_messages_per_connection = delivery.max_messages_per_connection
        self.ended: deque[ManagedRelayer] = deque(maxlen=ENDED_KEPT)
        self.next_check: float | None = None
        self.draining = False
        self.is_drained = False
        self.trouble = ""
        self._queue = queue
        self._parts = parts
        self._clock = clock
        self._check_interval = delivery.check_interval
        terms = Terms(
            initial=delivery.initial_connections,
            most=delivery.max_connections_per_destination,
            per_connection=delivery.max_messages_per_connection,
            lifetime=delivery.connection_lifetime,
            idle=delivery.idle,
        )
        common = self._common = Common(
            queue, clock, retries, Limits(limits, clock, lambda: queue.share), terms, wake=self.wake
        )
        self.pause = common.pause
        self.capacity = Capacity(clock, max_connections=delivery.max_connections, max_lookups=delivery.max_lookups)
        self._sites = Sites(common, self.capacity)
        self._chooser = Chooser(queue, self._sites, self.capacity)
        self._admission = Admission(queue, self._sites, self.capacity, clock, check_interval=delivery.check_interval)
        self._pressure = Pressure(queue, self._sites, self.capacity, clock)
        self._resumed: set[str] = set()  # destinations that come back with one connection
        self._live: dict[ManagedRelayer, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._checking = asyncio.Lock()
        self._checks: set[asyncio.Task[Check]] = set()
        self._housekeeping = Housekeeping(queue, parts.attempts, clock, wake=self.wake, is_over=self._is_over)
        self._clock_steps = ClockSteps(queue, self._sites, parts.mx, retries, clock, LONGEST_BLOCK)
        parts.attempts.on_untold = self.wake
        self._last_id = 0

    @property
    def managed(self) -> dict[ManagedRelayer, tuple[Claim, ...]]:
        """Each live relayer and the messages it answers for."""
        return {relayer: tuple(relayer.answers_for.values()) for relayer in self._live}

    def wake(self) -> None:
        """Check soon: something has changed that may let mail go."""
        self._woken.set()

    async def run(self) -> None:
        """Check whenever there is reason to, until drained. A store that fails is retried at the next check."""
        await asyncio.to_thread(registrable, "example.org")  # reads its list, which takes a moment
        while not self.draining:
            self._woken.clear()
            # Before the check: what falls due, or ends, while it runs is looked at again at once.
            now = self._clock.now()
            due: float | None = None
            ends: Sequence[float] = ()
            try:
                ends = (await self.check_state()).ends
                due = await self._queue.claims.next_due(now)
            except QueueError as error:
                self.trouble = str(error)
                log.error("check failed: %s", error)
            except Exception as error:
                self.trouble = f"fault in the check: {type(error).__name__}"
                log.exception("fault in the check")
            # What was due and was not taken waits for a connection: the end of one wakes us, not its time.
            times = [
                now + self._check_interval,
                *ends,
                *self._sites.endings(),
                *self._pressure.times(self._live),
            ]
            if paused := self.pause.limiting:
                times.append(paused.until or now)
            self.next_check = min(times if due is None else [*times, due])
            await self._clock.wait(self._woken, self.next_check)

    async def check_state(self) -> Check:
        """Carry out what is overdue, then open connections for what is due, destination by destination in turn.

        Returns once they are opened; the handle completes when they have ended. Raises QueueError.
        """
        # A task of its own: whoever asked may lose patience, but claims under way must get their relayer.
        check = asyncio.create_task(self._check(), name="check")
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)
        return await asyncio.shield(check)

    async def _check(self) -> Check:
        opened: list[ManagedRelayer] = []
        ends: list[float] = []
        async with self._checking:
            may_expire, unstepped = await self._look_for_steps()
            live = {relayer.id for relayer in self._live}
            trouble = await self._housekeeping.tidy(live, expire=may_expire) or unstepped
            refused: set[str] = set()
            while not self.draining and not self.is_drained and await self._serve(refused, opened, ends):
                pass
            if self.is_drained:  # also what was opened while that was said
                self._leave_to_others()
            await self._pressure.look(self._live)
        self.trouble = trouble
        return Check(opened, [self._live[relayer] for relayer in opened if relayer in self._live], ends)

    async def _look_for_steps(self) -> tuple[bool, str]:
        """Whether mail may expire in this check; and what kept times from being put right, for which no mail waits."""
        try:
            return not await self._clock_steps.look(), ""
        except QueueBroken:
            raise
        except QueueError as error:
            log.error("the clock was set, and the times of mail could not be put right: %s", error)
            return False, str(error)

    # -- what it is told by who changes something --------------------------------------------------------------------

    def let_go(self) -> None:
        """Mail that was kept back may go now, whatever its site: an operator said so."""
        self._common.unblock_all()
        self.wake()

    def resumed(self, destination: str) -> None:
        """The suspension of a destination, or of the RELAY, is over: it begins with one connection, and gently."""
        if destination == RELAY:
            self._sites.all_come_back()
        elif len(self._resumed) < KEPT:
            self._resumed.add(destination)
        self.let_go()

    def redirected(self, destination: str) -> None:
        """A destination's mail goes another way from now on, but for the message that is on its way."""
        self._sites.displace(destination)
        for relayer in self._live:
            relayer.reconsider(destination)
        self.wake()

    def abandon(self, host: str) -> None:
        """An operator has marked a host bad: the connections to it end, each after the message that is being sent."""
        for relayer in self._live:
            if relayer.host.lower() == host:
                relayer.leave(f"{host} is marked bad")
        self.let_go()

    async def close(self, id: int, by: str) -> ManagedRelayer | None:
        """End one connection; give its relayer once it has ended, None where none of that number is live.

        What it carries goes back to waiting untried, or where the peer may have taken it, as a possible duplicate.
        Its site rests for a moment, or makes do with the other connections it has, so that this one is not opened
        again at once. Raises QueueError, and then nothing is ended.
        """
        relayer = next((relayer for relayer in self._live if relayer.id == id), None)
        if relayer is None:
            return None
        task = self._live[relayer]
        await relayer.site.rest(relayer, f"a connection was closed by {by}")
        if relayer.close(by):
            task.cancel()
        await asyncio.wait({task}, timeout=_CLOSING)
        return relayer

    def stand_aside(self, is_drained: bool) -> None:
        """Finish the messages that are being sent, and claim no more: other nodes do. Or take part again."""
        self.is_drained = is_drained
        if is_drained:
            self._leave_to_others()
        self.wake()

    def _leave_to_others(self) -> None:
        for relayer in self._live:
            relayer.leave("this node is drained")

    async def drain(self, seconds: float) -> None:
        """Open nothing more, let each relayer end its message, and stop those that have not after `seconds`."""
        self.draining = True
        self.wake()
        if self._checks:
            await asyncio.wait(self._checks, timeout=seconds)
        tasks = list(self._live.values())
        for relayer in list(self._live):
            relayer.leave()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=seconds)
        with suppress(QueueError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._housekeeping.end()

    # -- what a relayer asks of its manager -----------------------------------------------------------------------

    async def more(self, relayer: ManagedRelayer) -> list[Claim]:
        """More messages for a relayer's site, unless another site waits for its connection."""
        site = relayer.site
        room = site.messages_left(relayer)
        if self.draining or self.is_drained or relayer.is_leaving or room <= 0 or site.on_messages():
            return []
        if await self._do_others_wait(relayer):
            self._chooser.yielded(site.name)
            relayer.leave("another site waits for the connection")
            return []
        if relayer.room is not None:
            room = min(room, relayer.room)
        claims = await self._claim(site, min(BATCH, room), relayer.id)
        if len(claims) == BATCH:
            self.wake()  # there may be enough for another connection
        return claims

    async def _do_others_wait(self, relayer: ManagedRelayer) -> bool:
        """Whether another site could be served if a relayer ended."""
        is_full = self.capacity.is_full(self._live)
        if not is_full and not relayer.is_in_doubt:
            return False
        may_doubt = self.capacity.on_doubt(self._live) is None
        if not is_full and may_doubt:
            return False
        closed = [*self._sites.closed(self._live), relayer.site.name]
        if not is_full:  # what has proved itself has places left: it waits for nobody
            shares = self.capacity.shares([other for other in self._live if other is not relayer])
            return bool(await self._queue.claims.doubtful_sites(closed, shares))
        return bool(await self._queue.claims.due_sites(1, closed, with_doubtful=may_doubt or relayer.is_in_doubt))

    async def admit(self, relayer: ManagedRelayer, way: Way) -> str:
        """Count a relayer among those of its site, now that it is known; or say why it is not to connect now.

        What it is to give back is left to those the site has, or waits until a limit allows more. Raises QueueError.
        """
        return await self._admission.admit(relayer, way, self._live)

    def stranded(self, claims: list[Claim]) -> None:
        """Keep claims that the store would not take back, and offer them again at each check."""
        self._housekeeping.stranded(claims)

    # -- what can be asked ----------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many relayers have a connection, or open one: the others look for their way."""
        return sum(relayer.is_admitted for relayer in self._live)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds are reached that others wait for, and that the way out seems to be closed, in sentences."""
        return (*self._pressure.notes(self._live), *self._parts.way_out.notes)

    def limits_on(
        self, destination: str, *, site: str = "", is_in_doubt: bool = False, message: int = 0, sender: str = ""
    ) -> tuple[Limiting, ...]:
        """All that keeps mail to a destination from going right now, by name; () when nothing does.

        Names are the dotted names of settings, or "blocked", "coming back", "connecting", "adaptive concurrency". What
        the queue knows (suspensions, blocks, when mail is due) is not among them, but for blocks of the whole site.
        `site` is the name that the queue has for its site; "": the one it was served under. `message` and `sender` are
        of its mail that is due first, if there is any.
        """
        flow = flow_of(message, sender, destination) if message else None
        at = self._sites.at(destination, site)
        found = self._sites.on_mail(at, self._live, is_in_doubt=is_in_doubt, flow=flow)
        paused = self.pause.limiting
        return (paused, *found) if paused is not None else found

    def room(self) -> Room:
        """To which sites mail may go now."""
        room = self._sites.room(self._live)
        return room if self.pause.limiting is None else replace(room, only=frozenset())

    def site_at(self, destination: str, site: str = "") -> Site:
        """The site of a destination; of one not served since the start only the limits that name it are known."""
        return self._sites.at(destination, site)

    # -- opening --------------------------------------------------------------------------------------------------

    async def _serve(self, refused: set[str], opened: list[ManagedRelayer], ends: list[float]) -> bool:
        """Call idle relayers and open connections for what is due, one for each site; False: there is no more to do.

        Sites without a busy connection come first, then those that may have one more. `refused` are sites of which it
        was found, in this check, that they can have none; each round does something or adds to them. `ends` takes the
        times at which what is found in the way ends: it may have ended before the check is through.
        """
        if paused := self.pause.limiting:
            ends += [paused.until] if paused.until is not None else []
            return False
        ends += self._sites.endings()  # before it is asked what is closed: what has ended since is not
        idle = [relayer for relayer in self._live if relayer.is_idle]
        limit = max(self.capacity.places(self._live), len(idle))
        if limit <= 0:
            return False
        closed = self._sites.closed(self._live) | refused
        busy = {relayer.site.name for relayer in self._live if not relayer.is_idle}
        found = await self._chooser.next(limit, closed, busy, self._live)
        leaving = sum(relayer.is_leaving for relayer in self._live)
        for chosen in found:
            site, is_in_doubt = chosen.due.site, chosen.due.is_in_doubt
            waiting = next((relayer for relayer in self._live if relayer.is_idle and relayer.site.name == site), None)
            if waiting is not None:
                waiting.call()
            elif self.capacity.on_beginning(self._live, is_in_doubt=is_in_doubt, flow=chosen.flow) is None:
                relayer = None
                with suppress(QueueDamaged):  # which the store tells; the mail of others is on other pages
                    relayer = await self._open(chosen, ends)
                if relayer:
                    opened.append(relayer)
                    self._chooser.served(chosen)
                else:
                    refused.add(site)
            else:
                refused.add(site)
                if leaving:
                    leaving -= 1  # its connection is on its way already
                elif self.capacity.is_taken(self._live):
                    self._dismiss_one(site)
        return bool(found)

    def _dismiss_one(self, site: str) -> None:
        """Have the connection end that has been idle for longest, since another site waits for one."""
        idle = [relayer for relayer in self._live if relayer.is_idle and relayer.site.name != site]
        if idle:
            min(idle, key=lambda relayer: relayer.pace.since).leave("another site waits for the connection")

    async def _open(self, chosen: Chosen, ends: list[float]) -> ManagedRelayer | None:
        due = chosen.due
        site = self._sites.of_due(due.site, due.destination)
        if due.destination in self._resumed:
            self._resumed.discard(due.destination)
            site.come_back()
        if limiting := site.on_messages() or site.on_connections():
            ends += [limiting.until] if limiting.until is not None else []
            return None
        number = self._last_id + 1
        most = min(BATCH, site.per_connection)
        claims = await self._claim(site, min(most, self._parts.session_lengths.most(site.host) or most), number)
        if not claims:
            return None
        self._last_id = number
        relayer = ManagedRelayer(
            number,
            site,
            claims,
            self._parts,
            self,
            is_in_doubt=due.is_in_doubt,
            flow=chosen.flow or flow_of(claims[0].message, claims[0].sender, due.destination),
        )
        site.join(relayer)
        task = asyncio.create_task(self._run(relayer), name=f"relayer {number} to {due.destination}")
        task.add_done_callback(lambda _: self._never_began(relayer))
        self._live[relayer] = task
        return relayer

    async def _claim(self, site: Site, limit: int, number: int) -> list[Claim]:
        """Claim messages of a site, as many as its limits allow."""
        buckets = [rule.messages for rule in site.rules if rule.messages is not None]
        limit = min([limit, *(bucket.available for bucket in buckets)])
        if limit <= 0:
            return []
        for bucket in buckets:
            bucket.take(limit)
        claims: list[Claim] = []
        claiming = asyncio.ensure_future(self._queue.claims.claim_site(site.name, limit, number))
        try:
            claims = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Closed in the middle: the store goes on claiming, and nobody would answer for what it claims.
            self.stranded(await claiming)
            raise
        finally:
            for bucket in buckets:
                bucket.give_back(limit - len(claims))
        for claim in claims:
            self._sites.place(claim.destination, site.name)
        return claims

    async def _run(self, relayer: ManagedRelayer) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await relayer.run()
        except QueueBroken as error:
            self.trouble = str(error)
        finally:
            self._ended(relayer)

    def _never_began(self, relayer: ManagedRelayer) -> None:
        """See to a relayer that was closed before its first step: nothing of `_run` is done then."""
        if relayer in self._live:
            self.stranded(list(relayer.answers_for.values()))
            self._ended(relayer)

    def _is_over(self, over: Over) -> None:
        for destination in over.suspended:
            self.resumed(destination)
        for destination in over.overridden:
            self.redirected(destination)

    def _ended(self, relayer: ManagedRelayer) -> None:
        del self._live[relayer]
        relayer.site.leave(relayer)
        self.ended.append(relayer)
        self.wake()
