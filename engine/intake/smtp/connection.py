"""The octets of one SMTP connection: what the client sends, in order and within bounds, and what we say to it.

A conversation reads commands and messages from here and says its replies here. What it waits for ends in one of three
ways: the octets come, the client's time is up (then the conversation is told `late`), or the connection is lost (then
it is told `lost`).
"""

import asyncio
import logging
import math
from ssl import SSLContext
from typing import Protocol, cast

from engine.base.text import clean
from engine.intake.content import MAX_LINE
from engine.intake.reply import Reply
from engine.intake.smtp.tls import HANDSHAKE, SHUTDOWN

log = logging.getLogger(__name__)

AHEAD = 128 * 1024  # octets of a client that wait here to be read; what is more waits in its own socket
LINGER = 60.0  # seconds a client may take to read the last that we say
_BEGUN = 16  # octets of a line that is too long, in which its verb is
_YIELD_EVERY = 32  # replies; a pipelined burst must not keep the loop from everyone else


class Gone(Exception):
    """The conversation is over: the client has gone, or was sent away."""


class LineTooLong(Exception):
    """More than MAX_LINE octets have come, and no end of the line. `begun` is what it begins with."""

    def __init__(self, begun: bytes) -> None:
        super().__init__()
        self.begun = begun


class Conversation(Protocol):
    """Who speaks over a connection, as far as the connection is concerned."""

    def begin(self) -> None:
        """The client is there, after TLS where that comes first."""
        ...

    def late(self) -> None:
        """The client's time is up; whoever is told so closes the connection."""
        ...

    def lost(self) -> None:
        """The connection is no more."""
        ...


class Connection(asyncio.Protocol):
    """Both directions of one connection. One task at a time may wait for what comes.

    `idle` is how many seconds a client may take for its next command. Replies are kept until the client is waited for,
    so that those to a group of commands go out in one piece (RFC 2920 3.2).
    """

    def __init__(self, conversation: Conversation, *, idle: float, is_secure: bool = False) -> None:
        self.idle = idle
        self.is_secure = is_secure
        self._conversation = conversation
        self._loop = asyncio.get_running_loop()
        self._peer = ""
        self._raw: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._come = bytearray()
        self._looked = 0  # octets of it in which there is no end of a line
        self._is_full = False
        self._has_ended = False
        self._said: list[bytes] = []
        self._in_a_row = 0  # replies since others had their turn
        self._is_unread = False
        self._is_shaking_hands = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._looks_at = 0.0  # the timer's; never after the deadline
        self._timer: asyncio.TimerHandle | None = None

    # -- its life -------------------------------------------------------------------------------------------------

    def arrive(self, raw: asyncio.Transport, peer: str) -> None:
        """A client has come over this; `connection_made` follows, after TLS where that comes first."""
        self._raw, self._peer = raw, peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The conversation can begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no instances of this class
        self._deadline = self._loop.time() + self.idle
        self._look_at(self._deadline)
        self._conversation.begin()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """The client has gone, or we have closed."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        self._conversation.lost()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is heard or said."""
        return self._transport is None or self._transport.is_closing()

    def close(self, farewell: Reply) -> None:
        """Say this and hang up; a client that does not read is cut off, at once or after LINGER seconds."""
        if self._transport is None or self._is_shaking_hands:
            self.abort()
        elif self._transport.is_closing():
            return
        elif self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._said.append(farewell.encoded())
            self.finish()

    def finish(self) -> None:
        """Send what was said, and hang up."""
        if self._transport is None or self._transport.is_closing():
            return
        self.flush()
        if self.is_secure or self._transport.get_write_buffer_size():
            self._look_at(self._loop.time() + LINGER)
        self._transport.close()
        self._wake()

    def abort(self) -> None:
        """Hang up without a word."""
        if transport := self._transport or self._raw:
            transport.abort()

    def heard(self, *, until: float = math.inf) -> None:
        """The client has done its part; for the next it has `idle` seconds, or until then on the loop's clock."""
        self._deadline = min(self._loop.time() + self.idle, until)
        if self._deadline < self._looks_at:
            self._look_at(self._deadline)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """See whether time is up. The timer is not set anew with each command, only when it has fired too early."""
        if self.is_over:
            self.abort()
        elif self._loop.time() < self._deadline:
            self._look_at(self._deadline)
        else:
            self._conversation.late()

    # -- what the client sends ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        if self.is_over:
            return
        self._come += data
        self._keep_within()
        self._wake()

    def eof_received(self) -> bool:
        """The client will send no more. What it sent is still answered, where TLS does not end both directions."""
        self._has_ended = True
        self._wake()
        return not self.is_secure

    async def line(self) -> bytes:
        """The next line with its end, which may be a bare LF. Raises LineTooLong, Gone.

        Waits for the client, while its time lasts; others have their turn after some replies.
        """
        await self._have_turn()
        while (end := self._come.find(b"\n", self._looked)) < 0:
            self._looked = len(self._come)
            if self._looked > MAX_LINE:
                raise LineTooLong(bytes(self._come[:_BEGUN]))
            await self._more()
        return self._take(end + 1)

    async def skip_line(self) -> None:
        """Let go of a line that is too long, up to its end. Raises Gone. Waits for the client, while its time lasts."""
        while (end := self._come.find(b"\n")) < 0:
            self._take(len(self._come))
            await self._more()
        self._take(end + 1)

    async def up_to(self, end: bytes) -> bytes:
        """What has come up to this end and with it; or, where it has not, all that can be no part of it. Raises Gone.

        It is never empty. Waits for the client, while its time lasts.
        """
        await self._have_turn()
        while True:
            found = self._come.find(end)
            size = found + len(end) if found >= 0 else len(self._come) - _begun(self._come, end)
            if size:
                return self._take(size)
            await self._more()

    async def at_most(self, octets: int) -> bytes:
        """What has come, and no more than so many octets, of which there is one at least. Raises Gone.

        It is never empty. Waits for the client, while its time lasts.
        """
        await self._have_turn()
        while not self._come:
            await self._more()
        return self._take(min(octets, len(self._come)))

    def put_back(self, data: bytes) -> None:
        """What was read is to be read once more."""
        self._come[:0] = data

    async def early(self) -> int:
        """How many octets have come that nobody was to send yet (RFC 2920 3.1).

        What lies in the socket counts too: the loop is given two turns in which to read it, one to find that there is
        something and one to fetch it. Who waits for the reply, as it must, cannot have sent anything in them.
        """
        for _ in range(2):
            if self._come:
                break
            await asyncio.sleep(0)
        return len(self._come)

    def discard(self) -> int:
        """Throw away what has come and was not read yet; give how many octets."""
        return len(self._take(len(self._come)))

    def _keep_within(self) -> None:
        """Let a client wait that sends more than is read."""
        if len(self._come) > AHEAD and not self._is_full and not self._is_shaking_hands and not self.is_over:
            self._is_full = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._come[:size])
        del self._come[:size]
        self._looked = 0
        if self._is_full and len(self._come) <= AHEAD // 2:
            self._is_full = False
            if not self.is_over and not self._has_ended:
                cast("asyncio.Transport", self._transport).resume_reading()
        return taken

    # -- what we say ----------------------------------------------------------------------------------------------

    def say(self, reply: Reply) -> None:
        """Say this when the client is waited for; hang up after it where it closes the session."""
        self._said.append(reply.encoded())
        self._in_a_row += 1
        if reply.closes:
            self.finish()

    def flush(self) -> None:
        """Send what was said."""
        if self._said and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._said))
        self._said.clear()

    async def flushed(self) -> None:
        """Send what was said, and wait until the client has read most of it, while its time lasts. Raises Gone."""
        self.flush()
        while self._is_unread and not self.is_over:
            await self._woken()
        if self.is_over:
            raise Gone

    def pause_writing(self) -> None:
        """The client does not read what we say: it is not heard until it does."""
        self._is_unread = True

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._is_unread = False
        self._wake()

    async def start_tls(self, context: SSLContext, reply: Reply) -> None:
        """Say this and shake hands, in HANDSHAKE seconds. Raises Gone where that comes to nothing (RFC 3207).

        From here to the handshake nothing else runs, so that all that comes later is TLS's.
        """
        raw = self._transport
        if raw is None or raw.is_closing():
            raise Gone
        raw.write(reply.encoded())
        self._is_shaking_hands = True
        try:
            secure = await self._loop.start_tls(
                raw,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except OSError as error:  # TLS errors and time-outs among them
            log.info("TLS with %s failed: %s", self._peer, clean(str(error), 200))
            secure = None
        finally:
            self._is_shaking_hands = False
        if secure is None or raw.is_closing():  # we may have hung up meanwhile, which only some loops say
            raw.abort()
            self.connection_lost(None)  # which nobody calls when the handshake comes to nothing
            raise Gone
        self._transport = secure
        self.is_secure = True
        self._keep_within()

    @property
    def secured(self) -> str:
        """Version and cipher of TLS, as in "TLSv1.3, TLS_AES_256_GCM_SHA384"; "" in the clear."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if tls is None:
            return ""
        cipher, *_ = tls.cipher() or ("",)
        return ", ".join(filter(None, (tls.version(), cipher)))

    # -- waiting --------------------------------------------------------------------------------------------------

    async def _have_turn(self) -> None:
        """Let others have theirs after some replies, and the client read what was said. Raises Gone."""
        if self._in_a_row >= _YIELD_EVERY:
            self._in_a_row = 0
            self.flush()
            await asyncio.sleep(0)
        if self._is_unread:
            await self.flushed()
        if self.is_over:
            raise Gone

    async def _more(self) -> None:
        """Send what was said and wait until more has come. Raises Gone."""
        if self._has_ended:
            raise Gone
        self.flush()
        self._in_a_row = 0
        await self._woken()
        if self.is_over:
            raise Gone

    async def _woken(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _begun(come: bytearray, end: bytes) -> int:
    """How many octets at the end of what has come may be the beginning of this."""
    return next((size for size in range(len(end) - 1, 0, -1) if come.endswith(end[:size])), 0)
