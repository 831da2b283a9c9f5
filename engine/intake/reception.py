"""What all SMTP sessions share: the queue they hand mail to, the rules, and whether mail is taken at all."""

import asyncio
import logging
from collections.abc import Callable

from engine.clock import Clock
from engine.config import Settings
from engine.intake.content import LARGE
from engine.intake.crowd import Crowd
from engine.intake.floor import DiskFloor
from engine.intake.limits import Guesses, Rates, lies_in
from engine.intake.refusals import Refusals
from engine.intake.taker import Taker
from engine.queue.queue import NewMessage, QueueBroken, QueueError, QueueFull
from engine.text import clean

_LOG = logging.getLogger(__name__)

PAUSED = "452 4.3.1 Not taking mail at the moment; try again later"
FULL = "452 4.3.1 No room for this message at the moment; try again later"
AT_A_TIME = 2  # large messages judged at once: each is in memory several times while it is

TOO_MUCH = "450 4.7.1 Too much mail from your {}; slow down, and try again later"
TOO_MANY = "452 {} Too many recipients from your {}; slow down, and send it again later for the others"
SICK = "451 4.3.0 This system has a problem; try again later"


class Reception:
    """The desk behind the door. `paused` is why no mail is taken, or ""; `closing` is set when intake stops.

    `crowd` is who is connected; `guesses` counts the logins that failed. `held` is how many octets of messages
    sessions hold in memory at this moment, `may_hold` how many they may.
    """

    def __init__(self, queue: Taker, settings: Settings, clock: Clock, floor: DiskFloor | None = None) -> None:
        self.hostname = settings.hostname
        self.rules = settings.intake.smtp
        self.clock = clock
        self.refusals = Refusals(queue, clock)
        self.paused = ""
        self.closing = False
        self.held = 0
        self.may_hold = max(8 * self.rules.max_message_size, 64 * 2**20)
        self.crowd = Crowd(self.rules.max_sessions, settings.intake.limits, settings.hostname)
        self.guesses = Guesses(settings.intake.limits, clock)
        self._rates = Rates(settings.intake.limits, clock)
        self._floor = floor
        self._queue = queue
        self._commits: set[asyncio.Task[int]] = set()
        self._judging = asyncio.Semaphore(AT_A_TIME)

    def relays_for(self, address: str) -> bool:
        """Whether a client of this IP address may send to anyone through us."""
        return lies_in(address, self.rules.relay_networks)

    def begin(self, address: str, login: str, octets: int) -> tuple[str, str]:
        """Count a message that is announced with so many octets; where it may not come in, the reply, and why."""
        if self._floor is not None and (short := self._floor.why_not(octets)):
            return PAUSED, short  # 452: RFC 5321 4.2.3, RFC 1870 6.1
        if whose := self._rates.begin(address, login):
            return TOO_MUCH.format(whose), f"the limit of the {whose}"
        return "", ""

    def recipient(self, address: str, login: str, *, is_first: bool) -> tuple[str, str]:
        """Count a recipient; where it may not be taken now, the reply, and why.

        4.5.3 where the message has others: it goes to these, and the client sends it again for the rest.
        """
        if whose := self._rates.recipient(address, login):
            return TOO_MANY.format("4.7.1" if is_first else "4.5.3", whose), f"the limit of the {whose} for recipients"
        return "", ""

    async def judge(self, octets: int, work: Callable[[], NewMessage]) -> NewMessage:
        """Do the work that makes a message of `octets`: if they are many in a thread, for the loop is everyone's.

        A thread goes on when the caller is cancelled, and keeps its place until it is done. Raises what `work` raises.
        """
        if octets <= LARGE:
            return work()
        await self._judging.acquire()
        judged = asyncio.get_running_loop().run_in_executor(None, work)
        judged.add_done_callback(lambda _: self._judging.release())
        return await asyncio.shield(judged)

    async def take(self, message: NewMessage) -> str:
        """Queue a message and give the reply: 250 only once it is on disk.

        The commit goes on when the caller is cancelled, for its client may be gone in the middle of it: the whole
        message is queued, or none of it.
        """
        commit = asyncio.get_running_loop().create_task(self._queue.enqueue(message))
        self._commits.add(commit)
        commit.add_done_callback(self._committed)
        try:
            number = await asyncio.shield(commit)
        except QueueFull:
            return FULL
        except QueueError:
            return SICK
        return f"250 2.0.0 Ok: queued as {number}"

    async def finish(self, seconds: float) -> None:
        """Wait for the commits under way, at most `seconds`; none is ever cancelled."""
        if self._commits:
            _, late = await asyncio.wait(self._commits, timeout=seconds)
            if late:
                _LOG.warning("%d messages were still being committed when SMTP intake stopped", len(late))
        await self.refusals.finish(seconds)

    def _committed(self, commit: asyncio.Task[int]) -> None:
        self._commits.discard(commit)
        error = None if commit.cancelled() else commit.exception()
        if error is None:
            return
        if isinstance(error, QueueBroken):
            self.paused = self.paused or clean(str(error)) or "the queue takes nothing more"
        if isinstance(error, QueueError):
            _LOG.warning("a message could not be queued: %s", clean(str(error)))


def trace_name(greeted: str, peer: str) -> str:
    """The from clause of the Received field: the name the client gave, and the address it has (RFC 5321 4.4)."""
    peer = peer.partition("%")[0]
    literal = f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"
    return f"{greeted} ({literal})"
