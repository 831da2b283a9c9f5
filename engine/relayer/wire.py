"""The bytes of one SMTP conversation: aiosmtplib's protocol, taught to be strict, to remember, and to send bodies.

Taught, because the library judges replies more kindly than a relay may (`2_2` and `550-no`/`250 yes` count as
accepted), bounds the body and the final reply with one time-out, and keeps no transcript.
"""

import asyncio
import re
import socket
import ssl

from aiosmtplib.errors import SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse
from msgspec import Struct

from engine.relayer.transcript import Transcript

_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?\Z", re.DOTALL)  # RFC 5321 4.2
_MAX_LINE = 8192  # bytes; RFC 5321 4.5.3.1.5 asks for 512, peers send more
_MAX_LINES = 128  # of one reply; an EHLO has some twenty
_CHUNK = 64 * 1024


class Reply(Struct, frozen=True, kw_only=True):
    """What the peer answered: a code from 200 to 599, and its text with the lines joined by newlines."""

    code: int
    text: str


class WireError(Exception):
    """The conversation cannot go on; the connection is closed. The text is ours, not the peer's."""


class Wire:
    """One connection to a mail exchange, from the open socket to its close.

    Every wait is bounded by the time-out given with it (seconds). Any time-out, loss or nonsense closes the
    connection, so a late reply can never be taken for the answer to a later command.
    """

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._protocol: _Protocol | None = None

    async def open(self, sock: socket.socket, timeout: float) -> Reply:
        """Take over a connected socket and wait for the greeting."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, protocol = await loop.create_connection(lambda: _Protocol(loop, self._transcript), sock=sock)
        except (OSError, TimeoutError) as error:
            sock.close()
            raise WireError(f"connection lost: {error}") from error
        self._protocol = protocol
        return await self._reply(timeout, "greeting")

    async def command(self, *words: bytes, timeout: float, shown: str | None = None) -> Reply:
        """Send one command and wait for its reply; `shown` stands in the transcript for what must stay secret."""
        protocol = self._live()
        protocol.forget()
        line = b" ".join(words)
        self._transcript.add(">", shown if shown is not None else line.decode("utf-8", "replace"))
        what = words[0].decode("ascii", "replace")
        try:
            response = await protocol.execute_command(line, timeout=timeout)
        except SMTPTimeoutError as error:
            raise self._fail(f"no reply to {what} within {timeout:.0f} s") from error
        except SMTPServerDisconnected as error:
            raise self._fail(f"connection lost after {what}") from error
        except SMTPResponseException as error:
            raise self._fail(f"{error.message} in reply to {what}") from error
        except BaseException:
            self.close()
            raise
        return Reply(code=response.code, text=response.message)

    async def send_body(self, content: bytes, block_timeout: float) -> Reply | None:
        """Send a message after 354, dots doubled (RFC 5321 4.5.2), all but the end that makes the peer answer for it.

        `block_timeout` bounds each block of 64 KiB. Gives the peer's reply when it answered in the middle and hung
        up; the transaction is over then.
        """
        protocol = self._live()
        self._transcript.add(">", f"({len(content):,} bytes of message)")
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        try:
            for start in range(0, len(stuffed), _CHUNK):
                protocol.send(stuffed[start : start + _CHUNK])
                async with asyncio.timeout(block_timeout):
                    await protocol.drained()
        except TimeoutError as error:
            raise self._fail(f"the peer did not read the message for {block_timeout:.0f} s") from error
        except (SMTPServerDisconnected, OSError) as error:
            early = protocol.early_reply()
            if early is not None:
                self.close()
                return Reply(code=early.code, text=early.message)
            raise self._fail("connection lost in the middle of the message") from error
        except BaseException:
            self.close()
            raise
        return None

    async def send_end(self, timeout: float) -> Reply:
        """Send the final dot and wait for the reply. From here on the peer may have the message (RFC 1047)."""
        protocol = self._live()
        self._transcript.add(">", ".")
        try:
            protocol.send(b".\r\n")
        except SMTPServerDisconnected as error:
            raise self._fail("connection lost at the final dot") from error
        return await self._reply(timeout, "the final dot")

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout: float) -> Reply | None:
        """Ask for TLS and shake hands; gives the reply where the peer declined, None once the line is secured.

        What the peer sent before the handshake is thrown away (RFC 3207 4.2).
        """
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
            raise self._fail(f"TLS handshake failed: {_reason(error)}") from error
        except BaseException:
            self.close()
            raise
        self._transcript.add("=", f"secured with {self.tls}")
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
        if protocol is not None and protocol.transport is not None:
            # abort, not close: a TLS close may wait for the peer's farewell until its own time-out.
            protocol.transport.abort()  # type: ignore[attr-defined]

    async def _reply(self, timeout: float, what: str) -> Reply:
        protocol = self._live()
        try:
            response = await protocol.read_response(timeout=timeout)
        except SMTPTimeoutError as error:
            raise self._fail(f"no reply to {what} within {timeout:.0f} s") from error
        except SMTPServerDisconnected as error:
            raise self._fail(f"connection lost waiting for the reply to {what}") from error
        except SMTPResponseException as error:
            raise self._fail(f"{error.message} in reply to {what}") from error
        except BaseException:
            self.close()
            raise
        return Reply(code=response.code, text=response.message)

    def _live(self) -> "_Protocol":
        if self._protocol is None or not self._protocol.is_connected:
            raise self._fail("connection lost")
        return self._protocol

    def _fail(self, why: str) -> WireError:
        self.close()
        self._transcript.add("=", why)
        return WireError(why)


class _Protocol(SMTPProtocol):
    """The library's protocol with a strict reading of replies and a transcript of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transcript: Transcript) -> None:
        super().__init__(loop=loop)
        self._transcript = transcript
        self._texts: list[str] = []
        self._codes: set[int] = set()

    def forget(self) -> None:
        """Drop what the peer said beyond its last reply: it must not be taken for the answer to the next command."""
        if self._buffer:
            self._transcript.add("=", f"{len(self._buffer)} bytes that nobody asked for are ignored")
            del self._buffer[:]

    def send(self, data: bytes) -> None:
        # A reply is expected from here on, even if it comes before all has been sent.
        self._response_pending = True
        self.write(data)

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


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return str(error) or type(error).__name__
