"""The smart host: decides what to send next, over which connections.

It runs `check_state` when mail arrives, when something falls due, when a connection frees, every `check_interval`, and
when the operator forces it. Destinations take turns, so that one with 500,000 messages does not starve one with 1;
those whose mail goes to the same hosts are one site, and share connections and limits.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress

from engine.allowance import Allowance
from engine.attempt import AttemptManager
from engine.clock import Clock
from engine.config import Limit
from engine.events import ENGINE, Event
from engine.leftovers import Leftovers
from engine.limits import Limiting, Limits
from engine.outcome import Outcome
from engine.queue.queue import (
    RELAY,
    Claim,
    DueSite,
    Queue,
    QueueBroken,
    QueueDamaged,
    QueueError,
    Room,
    unknown_site,
)
from engine.relayer.manager import Parts
from engine.relayer.relayer import ManagedRelayer
from engine.relayer.session import Form
from engine.retry import RetryPlan
from engine.routes import Way
from engine.sites import Connection, Site, Sites

log = logging.getLogger(__name__)

BATCH = 10  # messages claimed at a time: few are held back by a slow peer, one sync serves several
ENDED_KEPT = 100  # relayers whose transcript can still be read
PLACES_KEPT = 10_000  # destinations whose site is remembered
YIELDED_KEPT = 1000  # sites that gave up a connection for others
PAUSE = 30.0  # seconds; for a site that took mail and then hung up
_CLOSING = 12.0  # seconds; somewhat more than a relayer takes to leave nothing behind
LONGEST_BLOCK = 900.0  # seconds; a site that cannot be reached is tried again at least this often


class Check:
    """What one check_state opened. `completed` returns when all of it has ended."""

    def __init__(self, relayers: Sequence[ManagedRelayer], tasks: Sequence["asyncio.Task[None]"]) -> None:
        self.relayers = tuple(relayers)
        self._tasks = tuple(tasks)

    async def completed(self) -> None:
        """Wait until every connection this check opened has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)


class SmartHost:
    """Manages the relayers: who runs, to which site, with which messages.

    `managed` maps each live relayer to the messages it answers for. `max_connections` bounds all relayers,
    `max_connections_per_destination` those to one site; `max_messages_per_connection` is what one carries in its life,
    `connection_lifetime` how many seconds that lasts, `idle` how many it waits for more mail. A site begins with
    `initial_connections`, and gets its second only once its first is established, so a dead one costs one at a time.
    """

    def __init__(
        self,
        queue: Queue,
        attempts: AttemptManager,
        parts: Parts,
        *,
        clock: Clock,
        retries: RetryPlan,
        max_connections: int = 20,
        max_connections_per_destination: int = 5,
        max_messages_per_connection: int = 100,
        initial_connections: int = 2,
        idle: float = 2.0,
        connection_lifetime: float = 300.0,
        check_interval: float = 30.0,
        limits: Sequence[Limit] = (),
        form: Form = "ESMTP",
    ) -> None:
        self.max_connections = max_connections
        self.max_connections_per_destination = max_connections_per_destination
        self.max_messages_per_connection = max_messages_per_connection
        self.ended: deque[ManagedRelayer] = deque(maxlen=ENDED_KEPT)
        self.next_check: float | None = None
        self.draining = False
        self.trouble = ""
        self._queue = queue
        self._parts = parts
        self._clock = clock
        self._retries = retries
        self._idle = idle
        self._check_interval = check_interval
        self._form = form
        self._limits = Limits(limits, clock)
        self._sites = Sites(self._limits, clock, initial=initial_connections)
        self._allowance = Allowance(
            self._sites,
            clock,
            max_connections=max_connections,
            max_connections_per_destination=max_connections_per_destination,
            max_messages_per_connection=max_messages_per_connection,
            connection_lifetime=connection_lifetime,
        )
        self._places: OrderedDict[str, str] = OrderedDict()  # the site of each destination served lately
        self._resumed: set[str] = set()  # destinations that come back with one connection
        self._yielded: set[str] = set()
        self._live: dict[ManagedRelayer, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._checking = asyncio.Lock()
        self._checks: set[asyncio.Task[Check]] = set()
        self._leftovers = Leftovers(queue, attempts, self.wake)
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
        while not self.draining:
            self._woken.clear()
            # Before the check: what falls due, or ends, while it runs is looked at again at once.
            now = self._clock.now()
            due: float | None = None
            try:
                await self.check_state()
                due = await self._queue.next_due(now)
            except QueueError as error:
                self.trouble = str(error)
                log.error("check failed: %s", error)
            except Exception as error:
                self.trouble = f"fault in the check: {type(error).__name__}"
                log.exception("fault in the check")
            # What was due and was not taken waits for a connection: the end of one wakes us, not its time.
            times = [now + self._check_interval, *self._allowance.endings(self._live)]
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
        async with self._checking:
            trouble = await self._leftovers.tidy()
            refused: set[str] = set()
            while not self.draining and await self._serve(refused, opened):
                pass
        self.trouble = trouble
        return Check(opened, [self._live[relayer] for relayer in opened if relayer in self._live])

    def heed(self, events: Sequence[Event]) -> None:
        """See to it that what an operator lets go, or a host that answers again, goes, and goes gently.

        And that mail which is sent elsewhere from now on, or from a host that an operator has marked bad, goes there,
        but for the message that is on its way.
        """
        for event in events:
            if event.kind in ("overridden", "ended"):
                self._redirected(event.destination)
            if event.kind == "resumed" and event.destination == RELAY:
                self._sites.all_come_back()
            elif event.kind == "resumed" and len(self._resumed) < PLACES_KEPT:
                self._resumed.add(event.destination)
            is_marked_bad = event.kind == "marked bad" and event.by != ENGINE
            if is_marked_bad:
                self._abandon(event.host)
            if is_marked_bad or event.kind in ("resumed", "retried", "marked good"):
                self._sites.unblock_all()

    async def close(self, id: int, by: str) -> ManagedRelayer | None:
        """End one connection; give its relayer once it has ended, None where none of that number is live.

        What it carries goes back to waiting untried, or where the peer may have taken it, as a possible duplicate.
        Its site rests for a moment, or makes do with the other connections it has, so that this one is not opened
        again at once. Raises QueueError, and then nothing is ended.
        """
        relayer = next((one for one in self._live if one.id == id), None)
        if relayer is None:
            return None
        task, site, now = self._live[relayer], self._sites.get(relayer.site), self._clock.now()
        why = f"a connection was closed by {by}"
        if others := self._others(site, relayer):
            site.shrink(len(others), why, now, by_half=False, seconds=PAUSE)
        elif site.blocked_until < now + PAUSE:
            for destination in {relayer.destination, *(claim.destination for claim in relayer.answers_for.values())}:
                await self._queue.block(destination, now + PAUSE, why)
            self._sites.block(site, now + PAUSE, why)
        if relayer.close(by):
            task.cancel()
        await asyncio.wait({task}, timeout=_CLOSING)
        return relayer

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

    # -- what a relayer asks of its manager -----------------------------------------------------------------------

    async def more(self, relayer: ManagedRelayer) -> list[Claim]:
        """More messages for a relayer's site, unless another site waits for its connection."""
        site = self._sites.get(relayer.site)
        room = self._allowance.messages_left(relayer, site)
        if self.draining or relayer.is_leaving or room <= 0 or self._allowance.on_messages(site):
            return []
        # One that still looks for its way may yet find that its site is served, and free its place.
        if len(self._live) >= self.max_connections and all(one.is_admitted for one in self._live):
            closed = [*self._allowance.closed(self._live), relayer.site]
            others = await self._queue.due_sites(1, closed, with_doubtful=self._allowance.may_doubt(self._live))
            if others:
                if len(self._yielded) < YIELDED_KEPT:
                    self._yielded.add(relayer.site)
                relayer.leave("another site waits for the connection")
                return []
        claims = await self._claim(site, min(BATCH, room), relayer.id)
        if len(claims) == BATCH:
            self.wake()  # there may be enough for another connection
        return claims

    def site_of(self, way: Way) -> str:
        """The name of the site a way leads to; a destination with a limit of its own has connections of its own."""
        return f"{way.destination}: {way.site}" if self._limits.name(way.destination) else way.site

    async def admit(self, relayer: ManagedRelayer, way: Way) -> str:
        """Count a relayer among those of its site, now that it is known; or say why it is not to connect now.

        What it is to give back is left to those the site has, or waits until a limit allows more. Raises QueueError.
        """
        came_from = self._sites.get(relayer.site)
        known = came_from.rules
        is_own = self._limits.name(way.destination)
        site = self._sites.get(self.site_of(way), way.destination if is_own else "", way.hosts)
        self._remember(way.destination, site.name)
        # What is known only now counts for what was claimed before it was known.
        rates = [rule for rule in site.rules if rule not in known and rule.messages is not None]
        most = min(
            [self._allowance.per_connection(site), *(rule.messages.available for rule in rates if rule.messages)]
        )
        await relayer.keep(max(most, 1))
        if site is not came_from:
            came_from.connections.remove(relayer)
            site.connections.append(relayer)
            relayer.site = site.name
            if came_from.is_coming_back:
                site.come_back()
            if came_from.name == unknown_site(way.destination):
                self._sites.forget(came_from.name)
        relayer.site_host = site.host
        limiting = site.blocked if site.blocked_until > self._clock.now() else None
        limiting = limiting or next(filter(None, (rule.on_messages() for rule in rates)), None)
        for rule in rates:
            if rule.messages is not None:
                rule.messages.take(len(relayer.answers_for))
        limiting = limiting or self._allowance.on_connections(site, self._live, but=relayer)
        if limiting is None and any(one.is_idle for one in site.connections):
            limiting = Limiting("idle", None, "a connection of its site is idle")  # which the next check calls
        if limiting is None:
            for rule in site.rules:
                if rule.connections is not None:
                    rule.connections.take(1)
            return ""
        if limiting.name == "blocked" or not self._others(site, relayer):
            # Nobody's end will wake it: it waits for its time, or for the next check.
            soon = self._clock.now() + self._check_interval
            until = soon if limiting.until is None else limiting.until
            until = until if limiting.name == "blocked" else min(soon, until)
            for destination in {claim.destination for claim in relayer.answers_for.values()}:
                await self._queue.block(destination, until, limiting.text)
        return f"{limiting.name}: {limiting.text}"

    def may_dial(self, relayer: ManagedRelayer) -> bool:
        """Whether a relayer may open one more connection than the one it was admitted for."""
        rules = self._sites.get(relayer.site).rules
        return all(rule.connections.available for rule in rules if rule.connections is not None)

    def dials(self, relayer: ManagedRelayer) -> None:
        """Count a connection beyond the one a relayer was admitted for; what was not available is owed."""
        for rule in self._sites.get(relayer.site).rules:
            if rule.connections is not None:
                rule.connections.take(1)

    def idle_until(self, relayer: ManagedRelayer) -> float | None:
        """How long a relayer that has run dry may keep its connection; None: it is to end at once."""
        site = self._sites.get(relayer.site)
        now = self._clock.now()
        if self.draining or self._idle <= 0 or self._allowance.messages_left(relayer, site) <= 0:
            return None
        return min(now + self._idle, self._allowance.end_of(relayer))

    def is_served(self, relayer: ManagedRelayer) -> bool:
        """Whether other connections to the relayer's site deliver."""
        site = self._sites.known(relayer.site)
        return site is not None and any(one.has_delivered for one in self._others(site, relayer))

    def is_on_trial(self, relayer: ManagedRelayer, host: str) -> bool:
        """Whether a host comes back from being bad, and another relayer is the one that finds out how it is."""
        if not self._parts.mx.is_returning(host):
            return False
        return any(other.host == host for other in self._live if other is not relayer)

    def established(self) -> None:
        """A site can be reached: it may have further connections now."""
        self.wake()

    async def delivered(self, relayer: ManagedRelayer) -> None:
        """The site takes mail: what failed before counts no more, and it may have more connections. Raises QueueError.

        Those of its destinations that were left alone with it come back with it.
        """
        site = self._sites.get(relayer.site)
        was_coming_back = site.is_coming_back
        if site.delivered(self.max_connections_per_destination, self._clock.now()):
            self.wake()
        if was_coming_back or relayer.is_in_doubt:
            relayer.is_in_doubt = False
            self._sites.unblock(site)
            await self._queue.unblock_site(site.name)
            # Those of which nothing waits any more are not among them.
            await self._queue.unblock([relayer.destination, *(one.destination for one in relayer.answers_for.values())])

    def returned(self, relayer: ManagedRelayer, count: int) -> None:
        """So many messages of a relayer were not sent: they count for no limit."""
        for rule in self._sites.get(relayer.site).rules:
            if rule.messages is not None:
                rule.messages.give_back(count)

    def stranded(self, claims: list[Claim]) -> None:
        """Keep claims that the store would not take back, and offer them again at each check."""
        self._leftovers.stranded(claims)

    async def unreachable(
        self, relayer: ManagedRelayer, outcome: Outcome, *, until: float | None = None, pause: bool = False
    ) -> None:
        """Leave a site alone for a while: longer with each failure in a row, briefly where it did take mail.

        Where other connections to it go on, it has only one less, or half of them.
        """
        site, now = self._sites.get(relayer.site), self._clock.now()
        if until is None and self.is_served(relayer):
            site.shrink(len(self._others(site, relayer)), outcome.line, now, by_half=relayer.is_established)
            return
        if until is not None:
            # Not longer than this, whatever a mark says: it may be ended, and the MX may have changed.
            until = min(until, now + LONGEST_BLOCK)
        elif pause:
            until = now + PAUSE
        else:
            until = self._next_try(site, relayer.destination)
        self._sites.block(site, until, outcome.line)
        await self._queue.block_site(site.name, until, outcome.line)
        await self._queue.block(relayer.destination, until, outcome.line)
        await self._tell_unreachable(relayer.destination, outcome)

    async def lost(self, destination: str, outcome: Outcome, *, until: float | None = None) -> None:
        """Leave one destination alone for a while, to which no way is to be had, whatever its site."""
        site, now = self._sites.get(unknown_site(destination), destination), self._clock.now()
        until = self._next_try(site, destination) if until is None else min(until, now + LONGEST_BLOCK)
        self._sites.block(site, until, outcome.line)
        await self._queue.block(destination, until, outcome.line)
        await self._tell_unreachable(destination, outcome)

    # -- what can be asked ----------------------------------------------------------------------------------------

    def limits_on(self, destination: str, *, site: str = "", is_in_doubt: bool = False) -> tuple[Limiting, ...]:
        """All that keeps mail to a destination from going right now, by name; () when nothing does.

        Names are the dotted names of settings, or "blocked", "coming back", "connecting", "adaptive concurrency". What
        the queue knows (suspensions, blocks, when mail is due) is not among them, but for blocks of the whole site.
        `site` is the name that the queue has for its site; "": the one it was served under.
        """
        return self._allowance.on_mail(self.site_at(destination, site), self._live, is_in_doubt=is_in_doubt)

    def room(self) -> Room:
        """To which sites mail may go now."""
        return self._allowance.room(self._live)

    def site_at(self, destination: str, site: str = "") -> Site:
        """The site of a destination; of one not served since the start only the limits that name it are known."""
        place = site or self._places.get(destination, unknown_site(destination))
        found = self._sites.known(place)
        if found is None:
            found = Site(place, self.max_connections_per_destination)
            found.rules = self._limits.of(destination, ())
        return found

    # -- opening --------------------------------------------------------------------------------------------------

    async def _serve(self, refused: set[str], opened: list[ManagedRelayer]) -> bool:
        """Call idle relayers and open connections for what is due, one for each site; False: there is no more to do.

        Sites without a busy connection come first, then those that may have one more. `refused` are sites of which it
        was found, in this check, that they can have none; each round does something or adds to them.
        """
        idle = [relayer for relayer in self._live if relayer.is_idle]
        limit = max(self.max_connections - len(self._live), len(idle))
        if limit <= 0:
            return False
        closed = self._allowance.closed(self._live) | refused
        busy = {relayer.site for relayer in self._live if not relayer.is_idle}
        may_doubt = self._allowance.may_doubt(self._live)
        due = await self._queue.due_sites(limit, closed | busy | self._yielded, with_doubtful=may_doubt)
        if len(due) < limit:
            self._yielded.clear()
            seen = {one.site for one in due}
            due += await self._queue.due_sites(limit - len(due), closed | seen, with_doubtful=may_doubt)
        leaving = sum(relayer.is_leaving for relayer in self._live)
        for one in due:
            waiting = next((relayer for relayer in self._live if relayer.is_idle and relayer.site == one.site), None)
            if waiting is not None:
                waiting.call()
            elif one.is_in_doubt and not self._allowance.may_doubt(self._live):
                continue  # and the next round leaves out all of these
            elif len(self._live) < self.max_connections:
                relayer = None
                with suppress(QueueDamaged):  # which the store tells; the mail of others is on other pages
                    relayer = await self._open(one)
                if relayer:
                    opened.append(relayer)
                else:
                    refused.add(one.site)
            else:
                refused.add(one.site)
                if leaving:
                    leaving -= 1  # its connection is on its way already
                else:
                    self._dismiss_one(one.site)
        return bool(due)

    def _dismiss_one(self, site: str) -> None:
        """Have the connection end that has been idle for longest, since another site waits for one."""
        idle = [relayer for relayer in self._live if relayer.is_idle and relayer.site != site]
        if idle:
            min(idle, key=lambda relayer: relayer.phase_since).leave("another site waits for the connection")

    async def _open(self, due: DueSite) -> ManagedRelayer | None:
        site = self._site_at(due)
        if due.destination in self._resumed:
            self._resumed.discard(due.destination)
            site.come_back()
        if self._allowance.on_messages(site) or self._allowance.on_connections(site, self._live):
            return None
        number = self._last_id + 1
        claims = await self._claim(site, min(BATCH, self._allowance.per_connection(site)), number)
        if not claims:
            return None
        self._last_id = number
        relayer = ManagedRelayer(number, site.name, claims, self._parts, self, self._form, is_in_doubt=due.is_in_doubt)
        site.connections.append(relayer)
        self._live[relayer] = asyncio.create_task(self._run(relayer), name=f"relayer {number} to {due.destination}")
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
        claiming = asyncio.ensure_future(self._queue.claim_site(site.name, limit, number))
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
            self._remember(claim.destination, site.name)
        return claims

    async def _run(self, relayer: ManagedRelayer) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await relayer.run()
        except QueueBroken as error:
            self.trouble = str(error)
        finally:
            del self._live[relayer]
            site = self._sites.get(relayer.site)
            site.connections.remove(relayer)
            site.last_used = self._clock.now()
            self.ended.append(relayer)
            self.wake()

    # -- sites ----------------------------------------------------------------------------------------------------

    def _site_at(self, due: DueSite) -> Site:
        is_its_own = due.site == unknown_site(due.destination) or self._limits.name(due.destination)
        return self._sites.get(due.site, due.destination if is_its_own else "")

    def _others(self, site: Site, relayer: ManagedRelayer) -> list[Connection]:
        return [one for one in site.connections if one is not relayer]

    def _abandon(self, host: str) -> None:
        """End the connections to a host, each after the message that is being sent."""
        for relayer in self._live:
            if relayer.host.lower() == host:
                relayer.leave(f"{host} is marked bad")

    def _redirected(self, destination: str) -> None:
        """What was known of the way to a destination counts no more."""
        self._places.pop(destination, None)
        if site := self._sites.known(unknown_site(destination)):
            self._sites.unblock(site)
        for relayer in self._live:
            relayer.reconsider(destination)

    def _remember(self, destination: str, site: str) -> None:
        self._places[destination] = site
        self._places.move_to_end(destination)
        if len(self._places) > PLACES_KEPT:
            self._places.popitem(last=False)

    def _next_try(self, site: Site, destination: str) -> float:
        site.failures += 1
        return self._clock.now() + min(self._retries.schedule(destination).interval(site.failures), LONGEST_BLOCK)

    async def _tell_unreachable(self, destination: str, outcome: Outcome) -> None:
        now = self._clock.now()
        await self._queue.record(
            Event(at=now, kind="unreachable", destination=destination, host=outcome.host, outcome=outcome)
        )
