"""The counter at which a message is taken that came over HTTP, by whatever door: the same rules as over SMTP.

It is for as long as the message lasts that somebody stands there; of so many places one client has a quarter.
"""

import asyncio
import hashlib
import logging
from collections import Counter as Count
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from engine.base.text import clean
from engine.dkim.result import CannotSign
from engine.intake.drop.dropped import Dropped
from engine.intake.errors import Refused, Unfit
from engine.intake.http.posted import MAX_RECIPIENTS, composed, with_envelope
from engine.intake.http.problem import Problem
from engine.intake.preparation import Arrived
from engine.intake.smtp.incoming import SHARES, Incoming, NoRoom, client_name
from engine.intake.smtp.reception import Reception, trace_name
from engine.intake.smtp.senders import ANYBODY, may_send, shown
from engine.model.message import NewMessage
from engine.model.refusal import Refusal
from engine.queue.contract import Arrivals
from engine.queue.errors import QueueBroken, QueueError

log = logging.getLogger(__name__)

PLACES = 64  # messages that are posted at a time
BODY_SECONDS = 300.0  # in which all of a body must have come
PIECE = 64 * 1024  # bytes of a body that are read in one go
LONGEST_KEY = 200  # characters of an Idempotency-Key
KEYS_KEPT = 100_000  # messages back from the last one for which a key is remembered
RETRY = 60  # seconds until whoever cannot be served now is to come again
AT_ONCE = 5  # the same, where all that is in the way are others who post
_SWEPT_EVERY = 1000  # messages

_KEYS = "http:"
_ENVELOPE = ("X-Envelope-From", "X-Envelope-To")
_TYPES = ("message/rfc822", "application/json")


class Counter:
    """Takes what is posted. `reception` has the rules and limits, which are those of SMTP, and counts with it."""

    def __init__(self, arrivals: Arrivals, reception: Reception) -> None:
        self._arrivals = arrivals
        self._reception = reception
        self._places: Count[str] = Count()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._swept = -1

    async def take(
        self, request: web.Request, peer: str, *, login: str = "", senders: tuple[str, ...] = (ANYBODY,)
    ) -> int:
        """Take the message of a request, and give its number once it is on disk. Raises Problem.

        `peer` is an address, or a local user as `engine.base.local_user` has it; `login` may send as `senders`.
        """
        try:
            return await self._taken(request, peer, login, senders)
        except Refused as error:
            raise self._told(_as_problem(error), peer, login) from error
        except Problem as error:
            raise self._told(error, peer, login) from error

    async def finish(self, seconds: float) -> None:
        """Wait for what is being taken, at most `seconds`; none of it is cancelled."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)

    def refuse(self, problem: Problem, peer: str) -> Problem:
        """Tell in the events and the mail log of somebody who is not served, and give the problem."""
        return self._told(problem, peer, "")

    # -- one message ----------------------------------------------------------------------------------------------

    async def _taken(self, request: web.Request, peer: str, login: str, senders: tuple[str, ...]) -> int:
        kind, key, largest = _kind(request), _key(request), self._reception.rules.max_message_size
        envelope = {name: request.headers[name] for name in _ENVELOPE if name in request.headers}
        if envelope and kind != _TYPES[0]:
            raise Problem(
                400, "the envelope stands in the body", where=next(iter(envelope)), allowed="from, to, cc, bcc"
            )
        announced = request.content_length or 0
        if announced > largest:
            raise _too_big(largest)
        self._may_begin()
        self._reception.begin(peer, login, announced)
        client = client_name(peer, login)
        self._enter(client)
        incoming, task = self._reception.storeroom.begin(client), None

        def read() -> Arrived:
            body = b"".join(incoming.pieces())
            content = composed(body) if kind == _TYPES[1] else with_envelope(body, envelope)
            return Dropped(
                content=content,
                origin=f"http {peer}{f' as {login}' if login else ''}",
                key=_as_kept(key, login or peer, f"{kind} {envelope}", body) if key else None,
                sent_by=trace_name("http", peer),
                protocol="HTTPS" if request.secure else "HTTP",
                is_submission=True,
            ).arrived(self._reception.rules)

        try:
            await _read(request, incoming, largest)
            task = self._begun(self._queued(incoming, read, peer, login, senders))
        finally:
            if task is None:
                self._leave(incoming)
        return await asyncio.shield(task)

    def _may_begin(self) -> None:
        reception = self._reception
        if reception.closing or reception.is_drained:
            what = "this relay is going down" if reception.closing else "this node is being drained; try another"
            raise Problem(503, what, retry=RETRY)
        if reception.paused:
            raise Problem(
                503, "no mail is taken at the moment", retry=RETRY, why="not taking mail", detail=reception.paused
            )

    def _enter(self, client: str) -> None:
        """Take a place. Raises Problem."""
        if self._places[client] >= PLACES // SHARES:
            raise Problem(429, f"you are posting {PLACES // SHARES} messages already", retry=AT_ONCE)
        if self._places.total() >= PLACES:
            raise Problem(503, f"{PLACES} messages are being posted already", retry=AT_ONCE)
        self._places[client] += 1

    def _leave(self, incoming: Incoming) -> None:
        """Let go of what has come, and of the place."""
        incoming.close()
        self._places[incoming.client] -= 1
        if not self._places[incoming.client]:
            del self._places[incoming.client]

    async def _queued(
        self, incoming: Incoming, read: Callable[[], Arrived], peer: str, login: str, senders: tuple[str, ...]
    ) -> int:
        """Make a message of what has come, and queue it, to the end, where whoever asked has gone, too.

        Raises Problem, Refused.
        """
        try:
            return await self._made(incoming, read, peer, login, senders)
        finally:
            self._leave(incoming)

    async def _made(
        self, incoming: Incoming, read: Callable[[], Arrived], peer: str, login: str, senders: tuple[str, ...]
    ) -> int:
        reception = self._reception
        async with reception.turn(incoming.client, incoming.size) as judged:
            try:
                arrived = await judged(read)
            except Unfit as error:
                raise Problem.of_content(error) from error
            incoming.release()
            if not may_send(senders, arrived.sender):
                what = f"{arrived.sender} is not a sender of {login}"
                why, allowed = "no sender of the login", clean(shown(senders), 200)
                raise Problem(403, what, where="sender", allowed=allowed, why=why, detail=login)
            if len(arrived.recipients) > MAX_RECIPIENTS:
                what, allowed = f"{len(arrived.recipients)} recipients", f"{MAX_RECIPIENTS} at the most"
                raise Problem(400, what, where="recipients", allowed=allowed)
            for place in range(len(arrived.recipients)):
                reception.recipient(peer, login, is_first=not place)
            message = await judged(lambda: _prepared(reception, arrived))
            number = await self._number(await reception.refusing.sift(message))
        if arrived.key is not None and number // _SWEPT_EVERY > self._swept:
            self._swept = number // _SWEPT_EVERY
            await self._sweep(number - KEYS_KEPT)
        return number

    async def _number(self, message: NewMessage) -> int:
        try:
            return await self._reception.queue(message)
        except QueueBroken as error:
            raise Problem(503, "this relay has a problem", retry=RETRY) from error
        except QueueError as error:
            raise Problem(503, "there is no room for this message at the moment", retry=RETRY) from error

    async def _sweep(self, below: int) -> None:
        """Let go of the keys of messages of long ago."""
        try:
            await self._arrivals.forget_keys(_KEYS, below)
        except QueueError as error:
            log.warning("keys of messages that were posted are remembered longer than need be: %s", clean(str(error)))

    def _begun(self, work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # who waited for it may be gone

    def _told(self, problem: Problem, peer: str, login: str) -> Problem:
        if problem.why:
            by = f"http {peer}{f' as {login}' if login else ''}"
            self._reception.refusals.note(Refusal(peer=by, why=problem.why, detail=problem.detail))
        return problem


async def _read(request: web.Request, incoming: Incoming, largest: int) -> None:
    """Read the body of a request, all of it in time. Raises Problem."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_chunked(PIECE):
                if incoming.size + len(piece) > largest:
                    raise _too_big(largest)
                await incoming.add(piece)
    except TimeoutError as error:
        raise Problem(408, f"the body did not come within {BODY_SECONDS:.0f} s", where="body") from error
    except NoRoom as error:
        raise Problem(503, "there is no room for this message at the moment", retry=RETRY, detail=str(error)) from error
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        log.warning("a message that was posted cannot be kept: %s", error)
        raise Problem(503, "this relay has a problem", retry=RETRY) from error


def _prepared(reception: Reception, arrived: Arrived) -> NewMessage:
    """The message to queue. Raises Problem."""
    try:
        return reception.preparation.message(arrived, reception.clock.now())
    except CannotSign as error:
        status, retry = (400, 0) if error.is_permanent else (503, RETRY)
        what = "it cannot be signed (DKIM)" + ("" if error.is_permanent else " at the moment")
        raise Problem(status, what, retry=retry, why="cannot be signed", detail=str(error)) from error


def _kind(request: web.Request) -> str:
    if request.query:
        raise Problem(400, "there is no such field", where=next(iter(request.query)), allowed="no query")
    if "Content-Encoding" in request.headers:
        raise Problem(415, "the body is encoded", where="Content-Encoding", allowed="a body as it is")
    if request.content_type not in _TYPES:
        raise Problem(415, "a body of this kind is not taken", where="Content-Type", allowed=" or ".join(_TYPES))
    return request.content_type


def _key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > LONGEST_KEY or not (key.isascii() and key.isprintable()):
        allowed = f"up to {LONGEST_KEY} characters of ASCII"
        raise Problem(400, "this is no key", where="Idempotency-Key", allowed=allowed)
    return key


def _as_kept(key: str, whose: str, about: str, body: bytes) -> str:
    """A key as the store has it: with another body it is another, for no message is answered for and not queued."""
    parts = (text.encode("utf-8", "surrogateescape") for text in (whose, key, about))
    return _KEYS + hashlib.sha256(b"\0".join((*parts, body))).hexdigest()


def _too_big(largest: int) -> Problem:
    allowed = f"up to {largest} bytes (intake.smtp.max_message_size)"
    return Problem(413, "the message is too big", where="body", allowed=allowed, why="too big")


def _as_problem(error: Refused) -> Problem:
    """What would be refused over SMTP: too much of it, or no room."""
    is_too_much = error.reply.enhanced in ("4.7.1", "4.5.3")
    return Problem.of_refusal(error, status=429 if is_too_much else 503, retry=RETRY)
