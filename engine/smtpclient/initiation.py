"""How a session begins (RFC 5321 3.1, 3.2): connected, greeted, secured and logged in.

A host that will not have us is no verdict on the mail: whatever it answers here is transient, and SessionError tells
what it is to be blamed for.
"""

import asyncio
import os
import ssl
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Literal

from aiosmtplib.auth import auth_login_encode, auth_plain_encode, auth_xoauth2_encode
from aiosmtplib.esmtp import parse_esmtp_extensions
from msgspec.structs import replace

from engine.base.text import clean
from engine.login.login import NoLogin, Password, Tokens
from engine.model.outcome import Cause, Outcome
from engine.settings.settings import Timeouts
from engine.smtpclient.blame import MACHINE, Blame, of_error
from engine.smtpclient.dialler import Dialler
from engine.smtpclient.failures import LoopsBack, SessionError, TlsBroken
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import HandshakeFailed, Reply, Wire, WireError
from engine.tls import chains, contexts, dane
from engine.tls.secured import Secured, is_trusted

Phase = Literal[
    "lookup", "connecting", "greeting", "hello", "TLS", "AUTH",
    "MAIL", "RCPT", "DATA", "body", "reply", "idle", "QUIT", "ended",
]  # fmt: skip

_SILENT = 15.0  # seconds without a greeting, after which a host that an operator named is looked at
_ASKING = 5.0  # seconds for each of the steps of that
_LONGEST_COMMAND = 504  # octets of what follows "AUTH " and a blank, of the 512 of a line (RFC 5321 4.5.3.1.4)
_NO_TLS_AT_ONCE = ': the host speaks no TLS at this port before STARTTLS: write tls = "required" or "verified"'
_REFUSED: dict[Phase, Cause] = {"greeting": "greeting", "hello": "greeting", "AUTH": "login"}  # what was refused


class Initiation:
    """Brings a wire to where a transaction can begin; then `extensions` is what the peer offers, `secured` how it is.

    `on_phase` is told of each phase as it begins. `blame` judges what dialling an address meets.
    """

    def __init__(
        self,
        wire: Wire,
        target: Target,
        *,
        hostname: bytes,
        timeouts: Timeouts,
        transcript: Transcript,
        on_phase: Callable[[Phase], None],
        blame: Callable[[OSError, str], Blame] = of_error,
    ) -> None:
        self._wire = wire
        self._target = target
        self._hostname = hostname
        self._hello_name = target.hello.encode("ascii") or hostname
        self._timeouts = timeouts
        self._transcript = transcript
        self._on_phase = on_phase
        self._blame = blame
        self._phase: Phase = "connecting"
        self._auth: list[str] = []
        self._token = ""
        self.extensions: dict[str, str] = {}
        self.secured = Secured()

    async def run(self, dialler: Dialler) -> None:
        """Connect, greet, secure and log in. Raises SessionError, TlsBroken; the wire is closed then."""
        try:
            await self._get_token()
            await self._connect(dialler)
            await self._hello()
            await self._secure()
            await self._authenticate()
        except WireError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in MACHINE:
                raise self._unusable(str(error), blamed="machine") from error
            is_greeting = self._phase == "greeting"
            lost: Cause = "greeting" if is_greeting else "lost"
            raise self._unusable(str(error), unreachable=is_greeting, cause=lost) from error
        except BaseException:
            self._wire.close()
            raise

    async def _get_token(self) -> None:
        """Have a token to log in with, where one is needed: without one nobody is dialled."""
        if not isinstance(self._target.login, Tokens):
            return
        self._enter("AUTH")
        try:
            self._token = await self._target.login.token()
        except NoLogin as error:
            raise self._unusable(f"no token to log in with: {error}", enhanced="4.7.0", cause="login") from error

    async def _connect(self, dialler: Dialler) -> None:
        target, timeouts = self._target, self._timeouts
        self._enter("connecting")
        self._transcript.add("=", f"connecting to {target.host} [{target.address}]:{target.port}")
        try:
            sock = await dialler.dial(target.address, target.port, timeouts.connect, target.source)
        except TimeoutError as error:
            why = f"no connection within {timeouts.connect:.0f} s to [{target.address}]:{target.port}"
            raise self._unusable(why, unreachable=True, silent=True, cause="connect") from error
        except OSError as error:
            blamed = self._blame(error, target.address)
            # What first: columns are narrow.
            why = f"{_reason(error)} {'by' if blamed == 'host' else 'here, for'} [{target.address}]:{target.port}"
            raise self._unusable(why, unreachable=True, blamed=blamed, cause="connect") from error
        if target.tls_at_once:
            self._say_what_is_demanded()
            self._enter("TLS")
            await self._shake_hands(partial(self._wire.open_tls, sock, timeout=timeouts.tls))
        else:
            await self._wire.open(sock, timeouts.connect)
        self._enter("greeting")
        greeting = await self._greeting(dialler)
        if greeting.code != 220:
            raise self._refused(greeting)
        self._meets_another(greeting)

    async def _greeting(self, dialler: Dialler) -> Reply:
        """What the host says first. Of one that says nothing it is found out whether it wants TLS before anything else.

        Only where an operator named it, who may have named a port of that kind (RFC 8314 3.3): a second connection to
        somebody who is merely slow would be a burden, and his port is 25.
        """
        target = self._target
        greeting = self._wire.greeting(self._timeouts.greeting)
        if target.tls_at_once or not target.is_named:
            return await greeting
        waiting = asyncio.create_task(greeting, name="greeting")
        try:
            await asyncio.wait({waiting}, timeout=_SILENT)
            is_silent = not waiting.done() or waiting.exception() is not None
            if is_silent and await self._wants_tls_at_once(dialler):
                why = f'no greeting: the host wants TLS at once at port {target.port}: write tls = "implicit"'
                raise self._unusable(why, unreachable=True, cause="greeting")
            return await waiting
        finally:
            waiting.cancel()

    async def _wants_tls_at_once(self, dialler: Dialler) -> bool:
        """Whether a handshake comes about where nothing was said before it."""
        target = self._target
        self._transcript.add("=", "nothing is said: asking whether it wants TLS at once")
        wire = Wire(self._transcript)
        try:
            sock = await dialler.dial(target.address, target.port, _ASKING, target.source)
            await wire.open_tls(sock, contexts.unverified(), target.host, _ASKING)
        except (OSError, WireError):  # TimeoutError among the former
            return False
        finally:
            wire.close()
        return True

    async def _hello(self) -> None:
        """RFC 5321 3.2: EHLO, and HELO where that is not known."""
        self._enter("hello")
        self.extensions, self._auth = {}, []
        if self._target.form == "ESMTP":
            reply = await self._wire.command(b"EHLO", self._hello_name, timeout=self._timeouts.hello)
            if reply.code == 250:
                self._meets_another(reply)
                self.extensions, self._auth = parse_esmtp_extensions(reply.text)
                return
            if not 500 <= reply.code <= 599 or not self._wire.is_open:
                raise self._refused(reply)
        reply = await self._wire.command(b"HELO", self._hello_name, timeout=self._timeouts.hello)
        if reply.code != 250:
            raise self._refused(reply)
        self._meets_another(reply)

    def _meets_another(self, reply: Reply) -> None:
        """Raise LoopsBack where the peer calls itself by our name, which comes first (RFC 5321 4.2, 4.3.1).

        Not where ours is no full name: half the machines that nobody has named are "localhost".
        """
        theirs = next(iter(reply.text.lower().split(None, 1)), "")
        names = {name.decode("ascii").lower() for name in (self._hostname, self._hello_name)}
        if "." in theirs and theirs in names:
            what = f"{self._target.host} [{self._target.address}] greets with our own name, {theirs}"
            raise LoopsBack(self._unusable(what, enhanced="4.4.6", cause="dns").outcome)

    async def _secure(self) -> None:
        demand = self._target.demand
        if self._target.tls_at_once:
            return
        self._say_what_is_demanded()
        if demand.level == "none":
            return
        if "starttls" not in self.extensions:  # the host has none, or someone on the way has taken it out
            if demand.is_must:
                why = f"{demand.line}; the host does not offer STARTTLS"
                raise self._unusable(why, enhanced="4.7.4", cause="tls")
            self._transcript.add("=", "no STARTTLS is offered: going on in the clear")
            return
        self._enter("TLS")
        if not await self._start_tls():
            self._transcript.add("=", "going on without TLS")
            return
        await self._hello()  # RFC 3207 4.2: what was said before TLS counts for nothing

    def _say_what_is_demanded(self) -> None:
        demand = self._target.demand
        for said in (demand.why and demand.line, demand.trial):
            if said:
                self._transcript.add("=", said)

    async def _start_tls(self) -> bool:
        """Ask for TLS; False: the host declined, and may."""
        demand = self._target.demand
        declined = await self._shake_hands(partial(self._wire.start_tls, timeout=self._timeouts.tls))
        if declined is None:
            return True
        if declined.code == 421:
            raise self._refused(declined)
        if demand.is_must:
            why = f"{demand.line}; the host answers STARTTLS with {declined.code} {declined.text}"
            raise self._unusable(why, enhanced="4.7.4", cause="tls")
        return False

    async def _shake_hands(self, handshake: Callable[[ssl.SSLContext, str], Awaitable[Reply | None]]) -> Reply | None:
        """Shake hands and look at the certificate as is demanded; gives the reply where the host declined."""
        target, demand = self._target, self._target.demand
        # RFC 7672 8.1: with DANE the host is asked for by its TLSA base domain.
        by_dane = demand.dane is not None and not demand.by_authorities
        name = demand.dane.names[0] if demand.dane is not None and by_dane else target.host
        try:
            declined = await handshake(_context(target), name)
        except WireError as error:
            by_network = isinstance(error, HandshakeFailed) and error.by_network
            hint = _NO_TLS_AT_ONCE if target.tls_at_once and _is_in_the_clear(error.__cause__) else ""
            raise self._tls_broken(f"{error}{hint}", by_network=by_network) from error
        except OSError as error:  # not the wire's
            why = f"the authorities to trust cannot be read: {_reason(error)}"
            raise self._unusable(why, enhanced="4.3.5", cause="ours") from error
        if declined is not None:
            return declined
        if demand.dane is not None and (fault := dane.fault(demand.dane, self._wire.chain)):
            self._wire.close()
            self._transcript.add("=", fault)
            raise self._tls_broken(fault)
        if demand.trial and (fault := self._on_trial()):
            self._transcript.add("=", f"{demand.trial}: {fault}")
        self.secured = self._judged_secured()
        self._transcript.add("=", f"secured: {self.secured.line}")
        return None

    def _on_trial(self) -> str:
        """Why the certificate would not do if the policy that is being tested were enforced, or ""."""
        try:
            return chains.by_authorities(self._wire.chain, self._target.host, self._target.demand.ca_file)
        except OSError as error:
            return f"the authorities to trust cannot be read: {_reason(error)}"

    def _judged_secured(self) -> Secured:
        """Whether the certificate, which is good enough for what is demanded, is one to trust."""
        target = self._target
        is_proved = target.demand.level == "verified" or target.login is not None
        trusted = is_proved or is_trusted(self._wire.chain, target.host, target.demand.ca_file)
        return Secured(self._wire.tls, trusted)

    def _tls_broken(self, why: str, *, by_network: bool = False) -> TlsBroken:
        demand = self._target.demand
        text = f"{why} ({demand.line})" if demand.is_must else why
        outcome = Outcome.transient(text, enhanced="4.7.5", host=self._target.host, phase=self._phase, cause="tls")
        return TlsBroken(outcome, by_network=by_network)

    async def _authenticate(self) -> None:
        """RFC 4954. A login that is refused is our fault, not the message's: transient."""
        login = self._target.login
        if login is None:
            return
        self._enter("AUTH")
        if not self.secured.version:
            raise self._unusable("the route has a login, and the host offers no TLS to log in under", cause="login")
        reply = await (self._give_password(login) if isinstance(login, Password) else self._give_tokens(login))
        if reply.code != 235:
            raise self._refused(reply)

    async def _give_password(self, login: Password) -> Reply:
        """RFC 4616, or the older LOGIN."""
        timeout = self._timeouts.hello
        if "plain" in self._auth:
            words = (b"AUTH", b"PLAIN", auth_plain_encode(login.username, login.password))
            return await self._wire.command(*words, timeout=timeout, shown="AUTH PLAIN ********")
        if "login" not in self._auth:
            why = "the route has a password, and the host offers neither AUTH PLAIN nor LOGIN"
            raise self._unusable(why, cause="login")
        name, password = auth_login_encode(login.username, login.password)
        reply = await self._wire.command(b"AUTH", b"LOGIN", name, timeout=timeout, shown="AUTH LOGIN ********")
        if reply.code == 334:
            reply = await self._wire.command(password, timeout=timeout, shown="********")
        return reply

    async def _give_tokens(self, login: Tokens) -> Reply:
        """Log in with the token at hand, and with another where the host would not have that: it may be over."""
        reply = await self._give_token(login.username, self._token)
        if 500 <= reply.code <= 599 and self._wire.is_open:
            login.refused(self._token)
            with suppress(NoLogin):  # what the host said is what counts then
                token, before = await login.token(), self._token
                if token != before:
                    self._token = token
                    self._transcript.add("=", "once more, with a new token")
                    reply = await self._give_token(login.username, token)
        if 500 <= reply.code <= 599:
            login.refused(self._token)
        return reply

    async def _give_token(self, username: str, token: str) -> Reply:
        """RFC 7628, or XOAUTH2, which came before it. A host that refuses one says why first, and wants an answer."""
        timeout, target = self._timeouts.hello, self._target
        if "oauthbearer" in self._auth:
            name, blob, heard = b"OAUTHBEARER", oauthbearer(username, token, target.host, target.port), b"AQ=="
        elif "xoauth2" in self._auth:
            name, blob, heard = b"XOAUTH2", auth_xoauth2_encode(username, token), b""
        else:
            why = "the route has tokens, and the host offers neither AUTH OAUTHBEARER nor XOAUTH2"
            raise self._unusable(why, cause="login")
        shown = f"AUTH {name.decode()} ********"
        if len(name) + len(blob) <= _LONGEST_COMMAND:
            reply = await self._wire.command(b"AUTH", name, blob, timeout=timeout, shown=shown)
        else:  # RFC 4954 4: what is longer than a command may be comes when it is asked for
            reply = await self._wire.command(b"AUTH", name, timeout=timeout)
            if reply.code == 334:
                reply = await self._wire.command(blob, timeout=timeout, shown="********")
        if reply.code == 334:
            self._transcript.add("=", f"the host says of the token: {clean(_challenge(reply.text), 300)}")
            reply = await self._wire.command(heard, timeout=timeout, shown=heard.decode())
        return reply

    def _refused(self, reply: Reply) -> SessionError:
        """A host that will not talk to us is no verdict on the mail: whatever the code, transient."""
        said = Outcome.of_reply(reply.code, reply.text, host=self._target.host, phase=self._phase)
        self._wire.close()
        return SessionError(replace(said, kind="transient", cause=_REFUSED.get(self._phase, "tls")))

    def _unusable(
        self,
        why: str,
        *,
        unreachable: bool = False,
        silent: bool = False,
        enhanced: str = "4.4.1",
        blamed: Blame = "host",
        cause: Cause = "",
    ) -> SessionError:
        self._wire.close()
        self._transcript.add("=", why)
        if blamed != "host":
            enhanced, cause = "4.3.2", "ours"  # RFC 3463 3.4: a system that does not take part now, and it is ours
        outcome = Outcome.transient(why, enhanced=enhanced, host=self._target.host, phase=self._phase, cause=cause)
        return SessionError(outcome, unreachable=unreachable, silent=silent, blamed=blamed)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._on_phase(phase)


def oauthbearer(username: str, token: str, host: str, port: int) -> bytes:
    """The answer of SASL OAUTHBEARER, in base64 (RFC 7628 3.1; RFC 5801 4 of the name)."""
    name = username.replace("=", "=3D").replace(",", "=2C")
    return b64encode(f"n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01".encode())


def _challenge(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode("utf-8", "replace")
    except ValueError:
        return text


def _context(target: Target) -> ssl.SSLContext:
    """What is offered and checked in the handshake; raises OSError where the authorities cannot be read.

    A password is given to nobody but the host it is for, so for one the certificate must be right (RFC 8314 3).
    """
    if target.login is not None or target.demand.by_authorities:
        return contexts.verifying(target.demand.ca_file)
    return contexts.opportunistic() if target.demand.level == "opportunistic" else contexts.unverified()


def _is_in_the_clear(error: BaseException | None) -> bool:
    """Whether a handshake failed on what is no TLS at all: OpenSSL takes a greeting for a version that it knows not."""
    return isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG")


def _reason(error: OSError) -> str:
    # The loops word a failed connect each in their own way; the system's words are the ones people know.
    return os.strerror(error.errno).lower() if error.errno else str(error)
