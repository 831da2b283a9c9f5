"""What all SMTP sessions share: the queue they hand mail to, the rules, and whether mail is taken at all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from engine.base.clock import Clock
from engine.base.local_user import uid_in
from engine.base.text import clean
from engine.intake.content import LARGE
from engine.intake.errors import Refused
from engine.intake.floor import DiskFloor
from engine.intake.preparation import Preparation
from engine.intake.refusals import Refusals
from engine.intake.reply import FULL, PAUSED, SICK, Reply
from engine.intake.smtp.guesses import Guesses
from engine.intake.smtp.incoming import Incoming, Storeroom, client_name
from engine.intake.smtp.lately import Lately
from engine.intake.smtp.limits import Rates, lies_in
from engine.intake.smtp.occupancy import Occupancy
from engine.intake.smtp.slots import Slots
from engine.intake.suppressed import Refusing
from engine.model.message import NewMessage
from engine.model.refusal import Refusal
from engine.queue.contract import Arrivals
from engine.queue.errors import QueueBroken, QueueError, QueueFull
from engine.settings.settings import Settings

log = logging.getLogger(__name__)

AT_A_TIME = 2  # large messages judged and queued at once: each is in memory, and several times while it is judged

T = TypeVar("T")

_ALLOWED = "intake.limits allows"  # as health says it


class Judge(Protocol):
    """Does a piece of work: at once, or in a thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class Reception:
    """The desk behind the door. `paused` is why no mail is taken, or ""; `closing` is set when intake stops.

    `is_drained`: whoever comes, or begins a message, is sent to another node.

    `occupancy` is who is connected; `guesses` counts the logins that failed; `storeroom` is where messages lie while
    they come in; `preparation` is what is done to each, and `refusing` says which recipients are refused. `least_rate`
    is in octets a second, see `Pace`.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        settings: Settings,
        clock: Clock,
        floor: DiskFloor | None = None,
        folder: Path | None = None,
        *,
        queued: Callable[[], None] = lambda: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
        preparation: Preparation | None = None,
        refusing: Refusing | None = None,
    ) -> None:
        self.hostname = settings.hostname
        self.preparation = preparation or Preparation.by(settings)
        self.refusing = refusing or Refusing(None, settings, clock)
        self.rules = settings.intake.smtp
        self.clock = clock
        self.refusals = Refusals(arrivals, clock, on_refusal)
        self.paused = ""
        self.closing = False
        self.is_drained = False
        self.least_rate = settings.intake.limits.least_data_rate
        self.storeroom = Storeroom(
            folder,
            floor,
            clock,
            may_hold=max(8 * self.rules.max_message_size, 64 * 2**20),
            most=self.rules.max_message_size,
        )
        submission = settings.intake.submission
        self.occupancy = Occupancy(
            self.rules.max_sessions,
            settings.intake.limits,
            settings.hostname,
            clock,
            submits=bool(submission.listen or submission.listen_tls),
        )
        self.guesses = Guesses(settings.intake.limits, clock)
        self._lately = Lately(clock)
        self._rates = Rates(settings.intake.limits, clock)
        self._floor = floor
        self._arrivals = arrivals
        self._queued = queued
        self._commits: set[asyncio.Task[int]] = set()
        self._remembering: set[asyncio.Task[None]] = set()
        self._slots = Slots(AT_A_TIME)
        # Threads of their own: the C library keeps what a thread has had, some 50 MiB for each that has judged.
        self._judges = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="judge")

    def relays_for(self, address: str) -> bool:
        """Whether a client of this IP address may send to anyone through us."""
        return lies_in(address, self.rules.relay_networks)

    def begin(self, address: str, login: str, octets: int) -> None:
        """Count a message that is announced with so many octets. Raises Refused where it may not come in."""
        if self._floor is not None and (short := self._floor.why_not(octets)):
            raise Refused(PAUSED, "not taking mail", short)  # 452: RFC 5321 4.2.3, RFC 1870 6.1
        if whose := self._rates.begin(address, login):
            who = client_name(address, login if whose == "login" else "")
            self._lately.reached(f"mail of the {whose}", f"450 to mail of {who}: more than {_ALLOWED}")
            reply = Reply(450, "4.7.1", f"Too much mail from your {whose}; slow down, and try again later")
            raise Refused(reply, "not taking mail", f"the limit of the {whose}")

    def recipient(self, address: str, login: str, *, is_first: bool) -> None:
        """Count a recipient. Raises Refused where it may not be taken now.

        4.5.3 where the message has others: it goes to these, and the client sends it again for the rest.
        """
        if whose := self._rates.recipient(address, login):
            who = client_name(address, login if whose == "login" else "")
            self._lately.reached(f"recipients of the {whose}", f"452 to recipients of {who}: more than {_ALLOWED}")
            slow_down = f"Too many recipients from your {whose}; slow down, and send it again later for the others"
            reply = Reply(452, "4.7.1" if is_first else "4.5.3", slow_down)
            raise Refused(reply, "too many recipients", f"the limit of the {whose} for recipients")

    def slow(self, address: str, login: str) -> None:
        """A message came in so slowly that it is not waited for."""
        who = client_name(address, login)
        self._lately.reached(
            "slow", f"421 in the middle of messages of {who}: slower than intake.limits.least_data_rate"
        )

    @property
    def held(self) -> int:
        """How many octets of messages that come in are in memory."""
        return self.storeroom.memory

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds of ours were reached lately."""
        return (*self.storeroom.notes, *self.occupancy.notes, *self.guesses.notes, *self._lately.texts)

    async def take(self, incoming: Incoming, work: Callable[[], NewMessage]) -> Reply:
        """Make a message of what has come, queue it, and give the reply: 250 only once it is on disk.

        `work` does the first; for a large message in a thread, for the loop is everyone's. Of large ones two at a time
        are in memory, from here to their commit; clients take turns. When the caller is cancelled a thread goes on, and
        keeps its place until it is done; a commit goes on to its end: its client may be gone in the middle of it, and
        the whole message is queued, or none of it. Raises what `work` raises.
        """
        if incoming.size <= LARGE:
            message = work()
            incoming.release()
            return await self._committed_reply(self._commit(message))
        await self._slots.take(incoming.client)
        judged = asyncio.get_running_loop().run_in_executor(self._judges, work)
        incoming.lend(judged)
        try:
            message = await asyncio.shield(judged)
        except BaseException:
            judged.add_done_callback(lambda _: self._slots.leave())
            raise
        incoming.release()
        commit = self._commit(message)
        commit.add_done_callback(lambda _: self._slots.leave())
        del message, judged, work  # it may take its time: the message is in memory once meanwhile
        return await self._committed_reply(commit)

    @asynccontextmanager
    async def turn(self, client: str, size: int) -> AsyncIterator[Judge]:
        """Have a turn with a message of this size, until it is committed; give how work on it is done.

        As in `take`, for whoever needs to see to something between two pieces of work. It must not be cancelled.
        """
        if size <= LARGE:
            yield _at_once
            return
        await self._slots.take(client)
        try:
            yield partial(asyncio.get_running_loop().run_in_executor, self._judges)
        finally:
            self._slots.leave()

    async def queue(self, message: NewMessage) -> int:
        """Queue a message and give its number; it goes on to its end where whoever waits is cancelled.

        Raises QueueError.
        """
        return await asyncio.shield(self._commit(message))

    def _commit(self, message: NewMessage) -> asyncio.Task[int]:
        commit = asyncio.get_running_loop().create_task(self._arrivals.enqueue(message))
        self._commits.add(commit)
        commit.add_done_callback(self._committed)
        return commit

    async def _committed_reply(self, commit: asyncio.Task[int]) -> Reply:
        try:
            number = await asyncio.shield(commit)
        except QueueFull:
            return FULL
        except QueueError:
            return SICK
        return Reply(250, "2.0.0", f"Ok: queued as {number}")

    def remember(self, address: str, login: str) -> None:
        """A login came in rightly from this address: it is kept in the store, so that a restart does not forget it."""
        task = asyncio.get_running_loop().create_task(self._remember(address, login))
        self._remembering.add(task)
        task.add_done_callback(self._remembering.discard)

    async def _remember(self, address: str, login: str) -> None:
        try:
            await self._arrivals.remember_login(login, address)
        except QueueError as error:
            log.warning("whence a login came could not be recorded: %s", clean(str(error)))
        except Exception:
            log.exception("whence a login came could not be recorded")

    async def recall(self) -> None:
        """Read from the store whence logins came in rightly; without it strangers' guesses would slow their owners."""
        try:
            for known in await self._arrivals.known_logins():
                self.guesses.welcome(known.address, known.login, known.at)
        except QueueError as error:
            log.warning("whence logins came could not be read: %s", clean(str(error)))

    def close(self) -> None:
        """End the threads; what they judge is not waited for."""
        self._judges.shutdown(wait=False, cancel_futures=True)

    async def finish(self, seconds: float) -> None:
        """Wait for the commits under way, at most `seconds`; none is ever cancelled."""
        if self._commits:
            _, late = await asyncio.wait(self._commits, timeout=seconds)
            if late:
                log.warning("%d messages were still being committed when SMTP intake stopped", len(late))
        if self._remembering:
            await asyncio.wait(self._remembering, timeout=seconds)
        await self.refusals.finish(seconds)

    def _committed(self, commit: asyncio.Task[int]) -> None:
        self._commits.discard(commit)
        error = None if commit.cancelled() else commit.exception()
        if error is None and not commit.cancelled():
            self._queued()
        if isinstance(error, QueueBroken):
            self.paused = self.paused or clean(str(error)) or "the queue takes nothing more"
        if isinstance(error, QueueError):
            log.warning("a message could not be queued: %s", clean(str(error)))


async def _at_once(work: Callable[[], T]) -> T:
    return work()


def trace_name(greeted: str, peer: str) -> str:
    """The from clause of the Received field: the name the client gave, and the address it has (RFC 5321 4.4).

    Of who comes over a Unix socket there is none; that and whose it is stand in its place.
    """
    if uid := uid_in(peer):
        return f"{greeted} ({uid})"
    peer = peer.partition("%")[0]
    literal = f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"
    return f"{greeted} ({literal})"
