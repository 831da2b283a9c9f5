"""The bytes of one SMTP conversation: aiosmtplib's protocol, taught to be strict, to remember, and to send bodies.

Taught, because the library judges replies more kindly than a relay may (`2_2` and `550-no`/`250 yes` count as
accepted), bounds the body and the final reply with one time-out, keeps no transcript, and knows no pipelining.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from aiosmtplib.errors import (
    SMTPReadTimeoutError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from aiosmtplib.protocol import COMMAND_INJECTION_REGEX, MAX_RESPONSE_LENGTH, SMTPProtocol
from aiosmtplib.response import SMTPResponse
from msgspec import Struct

from engine.queue.content import Content
from engine.smtpclient.chunk import Chunk, WrongLength
from engine.smtpclient.stuffing import Stuffing
from engine.smtpclient.transcript import Transcript

_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?\Z", re.DOTALL)  # RFC 5321 4.2
_MAX_LINE = 8192  # bytes; RFC 5321 4.5.3.1.5 asks for 512, peers send more
_MAX_LINES = 128  # of one reply; an EHLO has some twenty
_CHUNK = 64 * 1024
_WRONG_LENGTH = "the message does not have the length that was announced"


class Reply(Struct, frozen=True, kw_only=True):
    """What the peer answered: a code from 200 to 599, and its text with the lines joined by newlines."""

    code: int
    text: str


class WireError(Exception):
    """The conversation cannot go on; the connection is closed. The text is ours, not the peer's."""


class HandshakeFailed(WireError):
    """TLS did not come about. `by_network`: it was cut off or timed out, which tells nothing of the peer's TLS."""

    def __init__(self, why: str, *, by_network: bool) -> None:
        super().__init__(why)
        self.by_network = by_network


class OutOfStep(WireError):
    """The replies to a flight of commands cannot be told apart: none of them may be taken for a verdict."""


class Wire:
    """One connection to a mail exchange, from the open socket to its close.

    Every wait is bounded by the time-out given with it (seconds). Any time-out, loss or nonsense closes the
    connection, so a late reply can never be taken for the answer to a later command.
    """

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._protocol: _Protocol | None = None
        self._ahead: deque[bytes] = deque()  # commands that have been sent, and whose replies have not been read
        self._parting: Reply | None = None
        self._chunk: Chunk | None = None  # what the message goes in that is being sent; None: it goes after DATA
        self.in_hand: Reply | None = None  # what had come when whoever waited for it was called away

    async def open(self, sock: socket.socket, timeout: float) -> None:
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, protocol = await loop.create_connection(lambda: _Protocol(loop, self._transcript), sock=sock)
        except (OSError, TimeoutError) as error:
            sock.close()
            raise WireError(f"connection lost: {error}") from error
        self._protocol = protocol

    async def open_tls(self, sock: socket.socket, context: ssl.SSLContext, server_name: str, timeout: float) -> None:
        """Take over a connected socket, and shake hands before anything is said (RFC 8314 3.3)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, protocol = await loop.create_connection(
                    lambda: _Protocol(loop, self._transcript), sock=sock, ssl=context, server_hostname=server_name
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError among them
            sock.close()
            raise self._handshake_failed(error) from error
        except BaseException:
            sock.close()
            raise
        self._protocol = protocol

    async def greeting(self, timeout: float) -> Reply:
        """What the peer says first."""
        return await self._reply(timeout, "greeting")

    def send_ahead(self, lines: Sequence[bytes]) -> None:
        """Send several commands in one flight (RFC 2920 3.1); `command` then only waits for the reply to each, in turn.

        Nothing waits for the peer to read them: it may be waiting for us to read its replies (RFC 2920 3.1).
        """
        if any(COMMAND_INJECTION_REGEX.search(line) for line in lines):
            raise ValueError("a command with a control character in it")
        if (farewell := self._farewell()) is not None:
            self._parting = farewell  # which the first of these commands is answered with
            return
        protocol = self._live()
        for line in lines:
            self._transcript.add(">", line.decode("utf-8", "replace"))
        try:
            protocol.send(b"".join(line + b"\r\n" for line in lines), replies=len(lines))
        except SMTPServerDisconnected as error:
            raise self._fail("connection lost") from error
        self._ahead.extend(lines)

    async def command(self, *words: bytes, timeout: float, shown: str | None = None) -> Reply:
        """Send one command and wait for its reply; `shown` stands in the transcript for what must stay secret.

        A command that has been sent ahead is not sent again. Its reply can still be had when the peer has hung up.
        Where the peer has taken its leave (421), that is the reply, whether it came just before or comes just after.
        """
        if self._parting is not None:
            farewell, self._parting = self._parting, None
            return farewell
        line = b" ".join(words)
        what = words[0].decode("ascii", "replace")
        if self._ahead and self._protocol is not None:
            expected = self._ahead.popleft()
            assert line == expected, "commands sent ahead are asked for in their order"
            answer: Awaitable[SMTPResponse] = self._protocol.read_response(timeout=timeout)
        else:
            if (said := self._farewell()) is not None:
                return said
            protocol = self._live()
            self._transcript.add(">", shown if shown is not None else line.decode("utf-8", "replace"))
            answer = protocol.execute_command(line, timeout=timeout)
        return await self._judged(answer, timeout, what, f"connection lost after {what}")

    @property
    def ahead(self) -> tuple[bytes, ...]:
        """The commands sent ahead whose replies have not been read."""
        return tuple(self._ahead)

    @property
    def has_surplus(self) -> bool:
        """Whether the peer has said more than it was asked for."""
        return self._protocol is not None and self._protocol.has_surplus

    def out_of_step(self) -> OutOfStep:
        """Close, because the peer's replies are not those to our commands."""
        why = "the host's replies do not match the commands it was sent"
        self._fail(why)
        return OutOfStep(why)

    async def send_body(self, content: bytes | Content, block_timeout: float) -> Reply | None:
        """Send a message after 354, dots doubled (RFC 5321 4.5.2), all but the end that makes the peer answer for it.

        `block_timeout` bounds each block of 64 KiB. Gives the peer's reply when it answered in the middle: it answers
        for no more than it was sent, so the transaction is over then, and the connection with it. Raises what reading
        the content raises; the connection is closed then, and the peer has no whole message.
        """
        if (farewell := self._farewell()) is not None:
            self.close()
            return farewell
        self._chunk = None
        self._transcript.add(">", f"({_size(content):,} bytes of message)")
        return await self._send_all(content, Stuffing(), block_timeout)

    async def send_chunk(self, content: bytes | Content, block_timeout: float) -> Reply | None:
        """Send a message with BDAT LAST (RFC 3030 2), all but its last octet; as `send_body` otherwise."""
        if (farewell := self._farewell()) is not None:
            self.close()
            return farewell
        self._chunk = chunk = Chunk(_size(content))
        self._transcript.add(">", chunk.command)
        self._transcript.add(">", f"({_size(content):,} bytes of message)")
        return await self._send_all(content, chunk, block_timeout)

    async def _send_all(
        self, content: bytes | Content, framed: Callable[[bytes], bytes], block_timeout: float
    ) -> Reply | None:
        protocol = self._live()
        try:
            if isinstance(content, bytes):
                await _send_block(protocol, framed, content, block_timeout)
            else:
                async for block in content.blocks():
                    if not await _send_block(protocol, framed, block, block_timeout):
                        break
        except TimeoutError as error:
            raise self._fail(f"the peer did not read the message for {block_timeout:.0f} s") from error
        except (SMTPServerDisconnected, OSError) as error:
            if protocol.early_reply() is None:
                raise self._fail("connection lost in the middle of the message") from error
        except WrongLength as error:
            raise self._fail(_WRONG_LENGTH) from error
        except BaseException:
            self.close()
            raise
        early = protocol.early_reply()
        if early is None:
            return None
        self.close()
        return Reply(code=early.code, text=early.message)

    async def send_end(self, timeout: float) -> Reply:
        """Send the final dot and wait for the reply. From here on the peer may have the message (RFC 1047).

        After `send_chunk` it is the last octet of that.
        """
        protocol, chunk = self._live(), self._chunk
        try:
            end, shown = (b".\r\n", ".") if chunk is None else (chunk.end, "(the last byte of the chunk)")
        except WrongLength as error:
            raise self._fail(_WRONG_LENGTH) from error
        self._transcript.add(">", shown)
        try:
            protocol.send(end)
        except SMTPServerDisconnected as error:
            raise self._fail(f"connection lost at {self.ending}") from error
        return await self._reply(timeout, self.ending)

    @property
    def ending(self) -> str:
        """What makes the message whole that is being sent."""
        return "the final dot" if self._chunk is None else "the end of the chunk"

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout: float) -> Reply | None:
        """Ask for TLS and shake hands; gives the reply where the peer declined, None once the line is secured.

        What the peer sent before the handshake is thrown away (RFC 3207 4.2).
        """
        if (farewell := self._farewell()) is not None:
            return farewell
        protocol = self._live()
        self._transcript.add(">", "STARTTLS")
        try:
            async with asyncio.timeout(2 * timeout):  # one for the reply, one for the handshake
                await protocol.start_tls(context, server_hostname=server_name, timeout=timeout)
        except SMTPResponseException as error:
            if not protocol.is_connected or error.code < 200:
                raise self._fail(f"{error.message} in reply to STARTTLS") from error
            return Reply(code=error.code, text=error.message)
        except (SMTPTimeoutError, SMTPServerDisconnected, TimeoutError, OSError, ssl.SSLError) as error:
            raise self._handshake_failed(error) from error
        except BaseException:
            self.close()
            raise
        return None

    @property
    def tls(self) -> str:
        """The TLS version in use ("TLSv1.3"), or ""."""
        protocol = self._protocol
        if protocol is None or protocol.transport is None:
            return ""
        secured = protocol.transport.get_extra_info("ssl_object")
        return str(secured.version()) if secured is not None else ""

    @property
    def chain(self) -> list[bytes]:
        """The certificates the peer sent (DER), its own first; unverified. [] without TLS."""
        protocol = self._protocol
        if protocol is None or protocol.transport is None:
            return []
        secured = protocol.transport.get_extra_info("ssl_object")
        if secured is None:
            return []
        if hasattr(secured, "get_unverified_chain"):  # from Python 3.13 on
            return [bytes(each) for each in secured.get_unverified_chain()]
        inner = secured._sslobj  # noqa: SLF001 - before that it is there, but not for everyone
        return [bytes(each.public_bytes(ssl._ssl.ENCODING_DER)) for each in inner.get_unverified_chain() or ()]  # type: ignore[attr-defined]  # noqa: SLF001

    @property
    def peer_certificate(self) -> bytes:
        """The certificate the peer showed (DER), or b"" without TLS."""
        protocol = self._protocol
        secured = protocol.transport.get_extra_info("ssl_object") if protocol and protocol.transport else None
        return (secured.getpeercert(binary_form=True) or b"") if secured is not None else b""

    @property
    def is_open(self) -> bool:
        """Whether a command could still be sent."""
        return self._protocol is not None and self._protocol.is_connected

    def close(self) -> None:
        """Let go of the connection, at once and without a word."""
        protocol, self._protocol = self._protocol, None
        self._ahead.clear()
        if protocol is not None and protocol.transport is not None:
            # abort, not close: a TLS close may wait for the peer's farewell until its own time-out.
            protocol.transport.abort()  # type: ignore[attr-defined]

    async def _reply(self, timeout: float, what: str) -> Reply:
        answer = self._live().read_response(timeout=timeout)
        return await self._judged(answer, timeout, what, f"connection lost waiting for the reply to {what}")

    async def _judged(self, answer: Awaitable[SMTPResponse], timeout: float, what: str, lost: str) -> Reply:
        try:
            response = await answer
        except SMTPTimeoutError as error:
            raise self._fail(f"no reply to {what} within {timeout:.0f} s") from error
        except SMTPServerDisconnected as error:
            raise self._fail(lost) from error
        except SMTPResponseException as error:
            raise self._fail(f"{error.message} in reply to {what}") from error
        except BaseException:
            unread = self._protocol.early_reply() if self._protocol is not None else None
            self.in_hand = Reply(code=unread.code, text=unread.message) if unread is not None else None
            self.close()
            raise
        if response.code == 421:  # RFC 5321 3.8: the peer closes, and whether it has yet is all the same
            self.close()
        return Reply(code=response.code, text=response.message)

    def _farewell(self) -> Reply | None:
        """The 421 with which the peer has ended the session unasked (RFC 5321 3.8); all else it said so is dropped."""
        said = self._protocol.forget() if self._protocol is not None else None
        return Reply(code=said.code, text=said.message) if said is not None else None

    def _live(self) -> "_Protocol":
        if self._protocol is None or not self._protocol.is_connected:
            raise self._fail("connection lost")
        return self._protocol

    def _handshake_failed(self, error: BaseException) -> HandshakeFailed:
        why = f"TLS handshake failed: {_reason(error)}"
        self._fail(why)
        return HandshakeFailed(why, by_network=_is_networks(error))

    def _fail(self, why: str) -> WireError:
        self.close()
        self._transcript.add("=", why)
        return WireError(why)


def _size(content: bytes | Content) -> int:
    return len(content) if isinstance(content, bytes) else content.size


async def _send_block(protocol: "_Protocol", framed: Callable[[bytes], bytes], block: bytes, timeout: float) -> bool:
    """Send a block in pieces of 64 KiB, each within its time; False: the peer has answered in the middle."""
    for start in range(0, len(block), _CHUNK):
        protocol.send(framed(block[start : start + _CHUNK]))
        async with asyncio.timeout(timeout):
            await protocol.drained()
        if protocol.early_reply() is not None:
            return False
    return True


class _Protocol(SMTPProtocol):
    """The library's protocol with a strict reading of replies and a transcript of them.

    Replies that come together stay in the buffer, as bytes, until each is asked for: the library's one waiter stands
    for the reply that is awaited now, and takes the next from the buffer before it waits for the peer.

    It stands on private names of the library, which has no public ones for them; its version is pinned, and mypy knows
    its types: `_buffer` and `_read_response_from_buffer` (its own reading is kinder than RFC 5321 4.2.1),
    `_response_waiter`, `_response_pending` and `_set_response_exception` (it takes no reply that comes before it is
    asked for, as pipelining has them), `_drain_helper` and `_loop` (asyncio's, behind its own waiting).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transcript: Transcript) -> None:
        super().__init__(loop=loop)
        self._transcript = transcript
        self._texts: list[str] = []
        self._codes: set[int] = set()
        self._room = MAX_RESPONSE_LENGTH

    @property
    def has_surplus(self) -> bool:
        """Whether there are bytes beyond the last reply that was read."""
        return bool(self._buffer)

    def forget(self) -> SMTPResponse | None:
        """Drop what the peer said beyond its last reply: it must not be taken for the answer to the next command.

        But give a 421, which may come at any time, and ends the session.
        """
        self._room = MAX_RESPONSE_LENGTH
        if not self._buffer:
            return None
        if self._buffer.startswith(b"421"):
            with contextlib.suppress(SMTPResponseException):
                if (said := self._read_response_from_buffer()) is not None:
                    return said
            self._texts, self._codes = [], set()  # it was half a reply
        if self._buffer:
            self._transcript.add("=", f"{len(self._buffer)} bytes that nobody asked for are ignored")
            del self._buffer[:]
        return None

    def send(self, data: bytes, replies: int = 1) -> None:
        """Send without waiting for the peer to read; up to `replies` are kept until they are asked for."""
        # They are expected from here on, even if they come before all has been sent.
        self._response_pending = True
        self._room = replies * MAX_RESPONSE_LENGTH
        self.write(data)

    def data_received(self, data: bytes) -> None:
        """Keep what comes, within bounds, and read the reply that is awaited out of it.

        Reading never pauses, so a peer that answers before it reads on cannot block us both (RFC 2920 3.1).
        """
        if self._response_waiter is None:
            return  # after the end of the connection
        self._buffer.extend(data)
        if b"\n" in data:
            self._read_on()
        if len(self._buffer) > self._room:
            self._transcript.add("=", f"the peer sent {len(self._buffer):,} bytes that nobody can have asked for")
            del self._buffer[:]
            if not self._response_waiter.done():
                too_long = SMTPResponseException(-1, "what is too long")
                self._set_response_exception(self._response_waiter, too_long)
            if self.transport is not None:
                self.transport.abort()  # type: ignore[attr-defined]

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """Give the next reply: from the buffer where it is there already, even when the peer has hung up since."""
        waiter = self._response_waiter
        if waiter is None or (waiter.done() and not waiter.cancelled() and waiter.exception() is not None):
            response = self._read_response_from_buffer()
            if response is not None:
                return response
        else:
            self._response_pending = True
            self._read_on()
        return await self._awaited(timeout)

    async def _awaited(self, timeout: float | None) -> SMTPResponse:
        """Wait for the reply. What has come counts, be it at the very moment the time is over.

        Whoever is cancelled at that moment is cancelled all the same (before Python 3.12 wait_for() forgets it), and
        finds the reply with `early_reply`.
        """
        waiter = self._response_waiter
        if waiter is None:
            raise SMTPServerDisconnected("Connection lost")
        self._response_pending = True
        try:
            if not waiter.done():
                async with asyncio.timeout(timeout):
                    await waiter
        except TimeoutError as error:
            if waiter.cancelled():
                raise SMTPReadTimeoutError("Timed out waiting for server response") from error
        self._response_pending = False
        self._response_waiter = self._loop.create_future() if self.transport is not None else None
        return waiter.result()

    def _read_on(self) -> None:
        waiter = self._response_waiter
        if waiter is None or waiter.done() or not self._response_pending:
            return
        try:
            response = self._read_response_from_buffer()
        except SMTPResponseException as error:
            self._set_response_exception(waiter, error)
        else:
            if response is not None:
                waiter.set_result(response)

    async def drained(self) -> None:
        await self._drain_helper()

    def early_reply(self) -> SMTPResponse | None:
        """The reply that came before the connection was lost, if there was one."""
        waiter = self._response_waiter
        if waiter is None or not waiter.done() or waiter.cancelled() or waiter.exception() is not None:
            return None
        return waiter.result()

    def _read_response_from_buffer(self) -> SMTPResponse | None:
        """Read on in the buffer; give the reply once it is all there, None until then.

        Every line must carry the same code of three digits, 200 to 599 (RFC 5321 4.2.1).
        """
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            match = _REPLY_LINE.match(line) if len(line) <= _MAX_LINE else None
            if match is None or len(self._texts) >= _MAX_LINES:
                raise self._nonsense(line[:_MAX_LINE].decode("utf-8", "surrogateescape"))
            code, text = int(match[1]), (match[3] or b"").strip().decode("utf-8", "surrogateescape")
            last = match[2] != b"-"
            self._transcript.add("<", f"{code}{' ' if last else '-'}{text}")
            self._texts.append(text)
            self._codes.add(code)
            if last:
                texts, self._texts = self._texts, []
                codes, self._codes = self._codes, set()
                if len(codes) > 1:
                    raise SMTPResponseException(-1, "a reply whose lines have different codes")
                return SMTPResponse(code, "\n".join(texts))
        return None

    def _nonsense(self, shown: str) -> SMTPResponseException:
        self._transcript.add("<", shown)
        del self._buffer[:]
        return SMTPResponseException(-1, "what is no SMTP reply")


def _is_networks(error: BaseException) -> bool:
    """Whether a handshake ended by a reset, an end of file or a time-out, and not by what the peer said in TLS."""
    return not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return str(error) or type(error).__name__
