"""Probing a mail exchange: connect, EHLO, STARTTLS, QUIT, and tell what came back. It sends no mail.

Every address of the host is asked at once, each within a few seconds, so that whoever asks has an answer while they
wait. What a relayer would give minutes to (RFC 5321 4.5.3.2) is told as "no answer within" so many seconds.
"""

import asyncio
import os
import ssl
import time
from pathlib import Path
from typing import Protocol

from aiosmtplib.esmtp import parse_esmtp_extensions
from cryptography import x509

from engine.base.clock import Clock
from engine.base.text import clean
from engine.dns.lookups import MXError
from engine.model.outcome import Outcome
from engine.model.probe import Certificate, Probed, ProbedAddress
from engine.smtpclient.dialler import Dialler
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import HandshakeFailed, Reply, Wire, WireError
from engine.tls import contexts

MAX_ADDRESSES = 5
LOOKUP_SECONDS = 5.0
STEP_SECONDS = 5.0  # for the peer to connect, greet, answer
ADDRESS_SECONDS = 12.0  # for all that is asked of one address

_MAX_NAMES = 20  # of one certificate
_NONE_FOUND = "not an X.509 certificate"


class Directory(Protocol):
    """Who knows where a host is, and how it is spoken to: the router."""

    def spoken_to(self, host: str, port: int = 0) -> tuple[int, Path | None]:
        """At which port a host is spoken to, and whose authorities (None: the system's) judge its certificate."""
        ...

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host, or itself where it is one. Raises MXError."""
        ...


class Prober:
    """Probes hosts as this relay would speak to them: at the port and by the authorities that `router` knows."""

    def __init__(self, router: Directory, dialler: Dialler, clock: Clock, *, hostname: str) -> None:
        self._router = router
        self._dialler = dialler
        self._clock = clock
        self._hostname = hostname.encode("ascii")

    async def probe(self, host: str, port: int = 0) -> Probed:
        """Ask every address of a host, 5 at the most. Takes about 17 s at the most; raises nothing of the network's."""
        at, (port, ca_file) = self._clock.now(), self._router.spoken_to(host, port)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = await self._router.addresses(host)
        except MXError as error:
            return Probed(host=host, port=port, at=at, trouble=error.outcome.text)
        except TimeoutError:
            return Probed(host=host, port=port, at=at, trouble=f"DNS gave no address within {LOOKUP_SECONDS:.0f} s")
        asked = addresses[:MAX_ADDRESSES]
        found = await asyncio.gather(*(self._ask(host, address, port, ca_file) for address in asked))
        return Probed(host=host, port=port, at=at, addresses=tuple(found), left_out=len(addresses) - len(asked))

    async def _ask(self, host: str, address: str, port: int, ca_file: Path | None) -> ProbedAddress:
        conversation = _Conversation(host, address, port, self._hostname, Transcript(self._clock))
        began = time.monotonic()  # the loop's own goes by the millisecond
        verify_trouble = ""
        try:
            async with asyncio.timeout(ADDRESS_SECONDS):
                try:
                    await conversation.hold(self._dialler, _judging(ca_file))
                except WireError as error:
                    cause = error.__cause__
                    if not isinstance(error, HandshakeFailed) or isinstance(cause, TimeoutError):
                        raise
                    # Once more, as mail of which nothing more is asked would go: to see what it is, and what follows.
                    if isinstance(cause, ssl.SSLCertVerificationError):
                        verify_trouble = cause.verify_message or str(cause)
                        again = "once more, taking any certificate"
                    else:
                        verify_trouble = f"nothing as good as TLS 1.2 can be had: {error}"
                        again = "once more, with old versions and ciphers"
                    conversation.transcript.add("=", again)
                    await conversation.hold(self._dialler, contexts.opportunistic())
        except TimeoutError:
            conversation.trouble = conversation.trouble or f"not done within {ADDRESS_SECONDS:.0f} s"
        except WireError as error:
            conversation.trouble = str(error)
        finally:
            conversation.close()
        seconds = time.monotonic() - began
        return conversation.result(seconds, verify_trouble)


class _Conversation:
    """What is said with one address, once or twice."""

    def __init__(self, host: str, address: str, port: int, hostname: bytes, transcript: Transcript) -> None:
        self.trouble = ""
        self.transcript = transcript
        self._host = host
        self._address = address
        self._port = port
        self._hostname = hostname
        self._wire = Wire(transcript)
        self._phase = "connecting"
        self._greeting = ""
        self._offered: tuple[str, ...] = ()
        self._offered_secured: tuple[str, ...] = ()
        self._tls = ""
        self._certificate: Certificate | None = None

    async def hold(self, dialler: Dialler, context: ssl.SSLContext) -> None:
        """Connect, be greeted, EHLO, STARTTLS where it is offered, EHLO, QUIT. Raises WireError, TimeoutError."""
        self.close()
        self._wire = Wire(self.transcript)
        self._phase = "connecting"
        self.transcript.add("=", f"connecting to {self._host} [{self._address}]:{self._port}")
        try:
            sock = await dialler.dial(self._address, self._port, STEP_SECONDS)
        except TimeoutError as error:
            raise WireError(f"connect: no answer within {STEP_SECONDS:.0f} s") from error
        except OSError as error:
            # The loops word a failed connect each in their own way; the system's words are the ones people know.
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise WireError(f"connect: {why}") from error
        self._phase = "greeting"
        await self._wire.open(sock, STEP_SECONDS)
        greeting = await self._wire.greeting(STEP_SECONDS)
        self._greeting = _line(greeting)
        if greeting.code != 220:
            self.trouble = f"it does not greet: {self._greeting}"
        else:
            await self._converse(context)
        if self._wire.is_open:
            self._phase = "QUIT"
            await self._wire.command(b"QUIT", timeout=STEP_SECONDS)

    def close(self) -> None:
        """Let go of the connection."""
        self._wire.close()

    def result(self, seconds: float, verify_trouble: str) -> ProbedAddress:
        """What came of it."""
        return ProbedAddress(
            address=self._address,
            port=self._port,
            phase=self._phase,
            seconds=seconds,
            greeting=self._greeting,
            offered=self._offered,
            offered_secured=self._offered_secured,
            tls=self._tls,
            certificate=self._certificate,
            verifies=None if self._certificate is None else not verify_trouble,
            verify_trouble=clean(verify_trouble),
            trouble=clean(self.trouble),
            lines=tuple(self.transcript.lines()),
        )

    async def _converse(self, context: ssl.SSLContext) -> None:
        self._phase = "hello"
        self._offered, offers_tls = await self._hello()
        if not offers_tls or self.trouble:
            return
        self._phase = "TLS"
        declined = await self._wire.start_tls(context, self._host, STEP_SECONDS)
        if declined is not None:
            self.trouble = f"it offers STARTTLS and declines it: {_line(declined)}"
            return
        self._tls = self._wire.tls
        self._certificate = read_certificate(self._wire.peer_certificate)
        self._phase = "hello"
        self._offered_secured, _ = await self._hello()  # RFC 3207 4.2: what was said before TLS counts for nothing

    async def _hello(self) -> tuple[tuple[str, ...], bool]:
        """EHLO, or HELO where that is not known (RFC 5321 3.2): what is offered, and whether STARTTLS is."""
        reply = await self._wire.command(b"EHLO", self._hostname, timeout=STEP_SECONDS)
        if reply.code == 250:
            offered, _ = parse_esmtp_extensions(reply.text)
            # The first line is the peer's name and greeting, not an extension (RFC 5321 4.1.1.1).
            return tuple(clean(line, 200) for line in reply.text.split("\n")[1:] if line), "starttls" in offered
        if 500 <= reply.code <= 599 and self._wire.is_open:
            reply = await self._wire.command(b"HELO", self._hostname, timeout=STEP_SECONDS)
        if reply.code != 250:
            self.trouble = f"it does not take our name: {_line(reply)}"
        return (), False


def read_certificate(der: bytes) -> Certificate:
    """What a certificate says. One that cannot be read says so: strangers make them."""
    try:
        found = x509.load_der_x509_certificate(der)
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            listed = [str(name.value) for name in names]
        except x509.ExtensionNotFound:
            listed = []
        return Certificate(
            subject=clean(found.subject.rfc4514_string(), 400),
            issuer=clean(found.issuer.rfc4514_string(), 400),
            names=tuple(clean(name, 300) for name in listed[:_MAX_NAMES]),
            since=found.not_valid_before_utc.timestamp(),
            until=found.not_valid_after_utc.timestamp(),
        )
    except Exception as error:  # noqa: BLE001 - whatever is in it, it must not end the probe
        return Certificate(trouble=clean(str(error), 200) or _NONE_FOUND)


def _judging(ca_file: Path | None) -> ssl.SSLContext:
    """What is checked where a certificate must be right, as relayers check it. Raises WireError."""
    try:
        return contexts.verifying(ca_file)
    except OSError as error:
        of = ca_file or "the system's authorities"
        raise WireError(f"{of} cannot be read: {error.strerror or error}; so no certificate can be judged") from error


def _line(reply: Reply) -> str:
    return Outcome.of_reply(reply.code, reply.text).line
