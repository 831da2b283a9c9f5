"""The smart host: decides what to send next, over which connections.

It runs `check_state` when mail arrives, when something falls due, when a connection frees, every `check_interval`, and
when the operator forces it. Destinations take turns, so that one with 500,000 messages does not starve one with 1.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress

from engine.attempt import AttemptManager
from engine.clock import Clock
from engine.events import Event
from engine.outcome import Outcome
from engine.queue.queue import Claim, Queue, QueueBroken, QueueError
from engine.relayer.relayer import ManagedRelayer, Parts
from engine.relayer.session import Form
from engine.retry import RetryPlan

log = logging.getLogger(__name__)

BATCH = 10  # messages claimed at a time: few are held back by a slow peer, one sync serves several
OVERDUE_AT_ONCE = 100
NOTICES_AT_ONCE = 50  # messages of whose delay the senders are told in one check
ENDED_KEPT = 100  # relayers whose transcript can still be read
FAILURES_KEPT = 10_000  # destinations whose failures in a row are remembered
PAUSE = 30.0  # seconds; for a destination that took mail and then hung up
_CLOSING = 12.0  # seconds; somewhat more than a relayer takes to leave nothing behind
LONGEST_BLOCK = 900.0  # seconds; a destination that cannot be reached is tried again at least this often


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
    """Manages the relayers: who runs, for which destination, with which messages.

    `managed` maps each live relayer to the messages it answers for. `max_connections` bounds all relayers,
    `max_connections_per_destination` those of one; `max_messages_per_connection` is what one carries in its life. A
    destination gets its second connection only once its first is established, so a dead one costs one at a time.
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
        check_interval: float = 30.0,
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
        self._attempts = attempts
        self._parts = parts
        self._clock = clock
        self._retries = retries
        self._check_interval = check_interval
        self._form = form
        self._live: dict[ManagedRelayer, asyncio.Task[None]] = {}
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._woken = asyncio.Event()
        self._checking = asyncio.Lock()
        self._checks: set[asyncio.Task[Check]] = set()
        self._stranded: list[Claim] = []
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
            due: float | None = None
            try:
                await self.check_state()
                due = await self._queue.next_due()
            except QueueError as error:
                self.trouble = str(error)
                log.error("check failed: %s", error)
            except Exception as error:
                self.trouble = f"fault in the check: {type(error).__name__}"
                log.exception("fault in the check")
            now = self._clock.now()
            # What is due and was not taken waits for a connection: the end of one wakes us, not its time.
            at = now + self._check_interval
            self.next_check = min(at, due) if due is not None and due > now else at
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
        relayers: list[ManagedRelayer] = []
        async with self._checking:
            trouble = await self._tidy()
            while not self.draining and (room := self.max_connections - len(self._live)) > 0:
                destinations = await self._queue.due_destinations(room, without=self._satisfied())
                opened = [relayer for name in destinations if (relayer := await self._open(name))]
                if not opened:
                    break
                relayers += opened
        self.trouble = trouble
        return Check(relayers, [self._live[relayer] for relayer in relayers if relayer in self._live])

    def redirected(self, destination: str) -> None:
        """A destination's mail goes elsewhere from now on: its relayers end after the message that is being sent."""
        for relayer in self._live:
            if relayer.destination == destination:
                relayer.leave()

    async def close(self, id: int, by: str) -> ManagedRelayer | None:
        """End one connection; give its relayer once it has ended, None where none of that number is live.

        What it carries goes back to waiting untried, or where the peer may have taken it, as a possible duplicate.
        Its destination rests for a moment, so that the connection is not opened again at once. Raises QueueError, and
        then nothing is ended.
        """
        relayer = next((one for one in self._live if one.id == id), None)
        if relayer is None:
            return None
        task, now = self._live[relayer], self._clock.now()
        destination = await self._queue.destination(relayer.destination)
        if (destination.blocked_until or 0.0) < now + PAUSE:
            await self._queue.block(relayer.destination, now + PAUSE, f"a connection was closed by {by}")
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
        """More messages for a relayer's destination, unless another destination waits for its connection."""
        room = self.max_messages_per_connection - relayer.taken
        if self.draining or room <= 0:
            return []
        if len(self._live) >= self.max_connections:
            others = await self._queue.due_destinations(1, without=[*self._satisfied(), relayer.destination])
            if others:
                return []
        claiming = asyncio.ensure_future(self._queue.claim(relayer.destination, min(BATCH, room), relayer.id))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Closed in the middle: the store goes on claiming, and nobody would answer for what it claims.
            self.stranded(await claiming)
            raise

    def established(self) -> None:
        """A destination can be reached: it may have further connections now."""
        self.wake()

    def delivered(self, relayer: ManagedRelayer) -> None:
        """The destination takes mail: what failed before counts no more."""
        self._failures.pop(relayer.destination, None)

    def stranded(self, claims: list[Claim]) -> None:
        """Keep claims that the store would not take back, and offer them again at each check."""
        self._stranded += claims

    async def unreachable(
        self, relayer: ManagedRelayer, outcome: Outcome, *, until: float | None = None, pause: bool = False
    ) -> None:
        """Leave a destination alone for a while: longer with each failure in a row, briefly where it did take mail."""
        name, now = relayer.destination, self._clock.now()
        if until is not None:
            # Not longer than this, whatever a mark says: it may be ended, and the MX may have changed.
            until = min(until, now + LONGEST_BLOCK)
        elif pause:
            until = now + PAUSE
        else:
            failures = self._failures.pop(name, 0) + 1
            self._failures[name] = failures
            while len(self._failures) > FAILURES_KEPT:
                self._failures.popitem(last=False)
            until = now + min(self._retries.schedule(name).interval(failures), LONGEST_BLOCK)
        await self._queue.block(name, until, outcome.line)
        await self._queue.record(
            Event(at=now, kind="unreachable", destination=name, host=outcome.host, outcome=outcome)
        )

    # -- what is left over ----------------------------------------------------------------------------------------

    async def _tidy(self) -> str:
        """Give back what was stranded, give up on what is overdue, tell of delays; say what kept us from it, or "".

        A bounce that finds no room must not keep the rest of the mail from going, which is what makes room.
        """
        stranded, self._stranded = self._stranded, []
        overdue: list[Claim] = []
        try:
            if stranded:
                await self._queue.put_back(stranded, "the store would not take it back before")
                stranded = []
            overdue = await self._queue.overdue(OVERDUE_AT_ONCE)
            if len(overdue) == OVERDUE_AT_ONCE:
                self.wake()
            for claim in list(overdue):
                await self._give_up(claim)
                overdue.remove(claim)
            if await self._attempts.tell_delays(NOTICES_AT_ONCE):
                self.wake()
        except QueueBroken:
            raise
        except QueueError as error:
            log.error("what is overdue has to wait: %s", error)
            return str(error)
        finally:
            await self._give_back([*stranded, *overdue])
        return ""

    async def _give_up(self, claim: Claim) -> None:
        try:
            await self._attempts.give_up(claim)
        except QueueError:
            raise
        except Exception as error:
            log.exception("message %d cannot be given up", claim.message)
            await self._queue.set_aside(claim, f"it cannot be returned: {type(error).__name__}")

    async def _give_back(self, claims: list[Claim]) -> None:
        if not claims:
            return
        try:
            await self._queue.put_back(claims, "could not be given up")
        except QueueError:
            self._stranded += claims

    # -- opening --------------------------------------------------------------------------------------------------

    def _satisfied(self) -> set[str]:
        """Destinations that get no further connection now: at their limit, or not known to be reachable yet."""
        counts: dict[str, int] = {}
        satisfied: set[str] = set()
        for relayer in self._live:
            counts[relayer.destination] = counts.get(relayer.destination, 0) + 1
            if not relayer.is_established:
                satisfied.add(relayer.destination)
        satisfied.update(name for name, count in counts.items() if count >= self.max_connections_per_destination)
        return satisfied

    async def _open(self, destination: str) -> ManagedRelayer | None:
        number = self._last_id + 1
        claims = await self._queue.claim(destination, min(BATCH, self.max_messages_per_connection), number)
        if not claims:
            return None
        self._last_id = number
        relayer = ManagedRelayer(number, destination, claims, self._parts, self, self._form)
        self._live[relayer] = asyncio.create_task(self._run(relayer), name=f"relayer {number} to {destination}")
        return relayer

    async def _run(self, relayer: ManagedRelayer) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await relayer.run()
        except QueueBroken as error:
            self.trouble = str(error)
        finally:
            del self._live[relayer]
            self.ended.append(relayer)
            self.wake()
