"""How mail comes in over SMTP: listens, lets sessions in, and stops them in good order."""

import asyncio
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import NamedTuple, cast

from engine.base.clock import Clock
from engine.base.permission import refusal
from engine.base.socket_file import SocketFile, is_answered
from engine.intake.errors import IntakeError
from engine.intake.floor import DiskFloor
from engine.intake.preparation import Preparation
from engine.intake.reply import Reply, going_down
from engine.intake.smtp.limits import lies_in
from engine.intake.smtp.local import LocalUser
from engine.intake.smtp.meeting import AT_ONCE, Meeting
from engine.intake.smtp.occupancy import Door
from engine.intake.smtp.proxy import Introduction
from engine.intake.smtp.reception import Reception
from engine.intake.smtp.session import IDLE, Session
from engine.intake.smtp.submission import SubmissionSession
from engine.intake.smtp.tls import HANDSHAKE, SHUTDOWN, server_context
from engine.intake.smtp.users import Logins, Unavailable
from engine.intake.suppressed import Refusing
from engine.model.refusal import Refusal
from engine.queue.contract import Arrivals
from engine.settings.kinds import Listen, Network, UnixSocket
from engine.settings.settings import Settings

_LAST_WORDS = 2.0  # seconds in which a farewell may go out
_BACKLOG = 512
_FIRST_FREE_PORT = 1024  # below it a port is for who has a right of root
_LOOPBACK = ("127.0.0.1", "::1")

__all__ = ["IntakeError", "SmtpIntake"]


class SmtpIntake:
    """The SMTP server. It answers 250 to a message only once the queue has it on disk, and then calls `queued`.
    `on_refusal` is told of each thing that is refused.

    Large messages lie in `folder`, on the queue's file system, while they come in (None: where the system keeps such).
    `preparation` is what is done to each, and `refusing` says which recipients are refused.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        settings: Settings,
        clock: Clock,
        *,
        queued: Callable[[], None] = lambda: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
        floor: DiskFloor | None = None,
        idle: float = IDLE,
        folder: Path | None = None,
        preparation: Preparation | None = None,
        refusing: Refusing | None = None,
    ) -> None:
        self._reception = Reception(
            arrivals,
            settings,
            clock,
            floor,
            folder,
            queued=queued,
            on_refusal=on_refusal,
            preparation=preparation,
            refusing=refusing,
        )
        self._intake = settings.intake
        self._idle = idle
        self._servers: list[asyncio.Server] = []
        self._files: dict[UnixSocket, SocketFile] = {}
        self._names = ThreadPoolExecutor(1, thread_name_prefix="names of users")
        self._submission: list[asyncio.Server] = []
        self._submission_tls: list[asyncio.Server] = []
        self._logins: Logins | None = None
        self._sessions: set[Session] = set()
        self._meetings: dict[Meeting, None] = {}  # of whom it is not known yet who they are; the longest first

    async def start(self) -> None:
        """Listen at every address of the settings. Raises IntakeError, and then listens at none."""
        await asyncio.to_thread(self._reception.storeroom.sweep)
        make_relay = partial(Session, self._reception, self._sessions, idle=self._idle)
        smtp = self._intake.smtp
        self._relaying = _Way("relay", self._reception.relays_for, make_relay, smtp.proxy_networks)
        await self._open(self._servers, smtp.listen, self._relaying)
        submission = self._intake.submission
        if not submission.listen and not submission.listen_tls:
            return
        try:
            context = server_context(submission)
        except IntakeError:
            await self.stop(0)
            raise
        assert submission.users is not None
        logins = self._logins = await asyncio.to_thread(Logins, submission.users)
        await asyncio.to_thread(self.look)
        await self._reception.recall()
        make = partial(SubmissionSession, self._reception, self._sessions, tls=context, logins=logins, idle=self._idle)
        proxies = submission.proxy_networks
        await self._open(self._submission, submission.listen, _Way("submission", _nobody, make, proxies))
        # RFC 8314 3.3: TLS from the first octet.
        wrapped = _Way("submission", _nobody, partial(make, is_secure=True), proxies, context)
        await self._open(self._submission_tls, submission.listen_tls, wrapped)

    def look(self) -> None:
        """See whether the file of logins has changed; in any thread, for its file system may hang."""
        if self._logins is not None:
            with suppress(Unavailable):  # then `trouble` says so until the file is right
                self._logins.look()

    async def _open(self, servers: list[asyncio.Server], places: Iterable[Listen | UnixSocket], way: "_Way") -> None:
        for place in places:
            try:
                servers.append(await self._listen(place, way))
            except OSError as error:
                await self.stop(0)
                raise IntakeError(f"cannot listen on {place}: {_why(error, place)}") from error

    async def _listen(self, place: Listen | UnixSocket, way: "_Way") -> asyncio.Server:
        """Listen at a place. Raises OSError."""
        loop = asyncio.get_running_loop()
        if isinstance(place, Listen):
            doorkeeper = partial(_Doorkeeper, partial(self._arrive, way))
            return await loop.create_server(doorkeeper, place.host, place.port, backlog=_BACKLOG)
        if is_answered(place.path):  # it may be another relay's, with another spool
            raise FileExistsError("somebody listens there already")
        file = self._files.setdefault(place, SocketFile(place.path, self._intake.smtp.socket_group))
        doorkeeper = partial(_Doorkeeper, partial(self._arrive_here, way))
        return await loop.create_unix_server(doorkeeper, sock=file.bind(), backlog=_BACKLOG)

    async def mend(self) -> tuple[Path, ...]:
        """Make anew the Unix sockets that were removed or replaced, and give them. Raises OSError."""
        mended = []
        for number, place in enumerate(self._intake.smtp.listen[: len(self._servers)]):
            if isinstance(place, UnixSocket) and not self._files[place].is_ours and not self._reception.closing:
                self._servers[number].close()
                self._servers[number] = await self._listen(place, self._relaying)
                mended.append(place.path)
        return tuple(mended)

    async def stop(self, drain: float) -> None:
        """Take no more sessions, end the idle ones, and give those with a message up to `drain` seconds."""
        self._reception.closing = True
        servers = [*self._servers, *self._submission, *self._submission_tls]
        for server in servers:
            server.close()
        for file in self._files.values():
            file.remove()
        for meeting in list(self._meetings):
            meeting.give_up("")
        for session in self._sessions.copy():
            if not session.reading:
                session.close(self._farewell)
        await self._until_empty(drain)
        await self._reception.finish(drain)
        for session in self._sessions.copy():
            session.close(self._farewell)
        await self._until_empty(_LAST_WORDS if drain else 0.0)
        for session in self._sessions.copy():
            session.abort()
        await self._reception.storeroom.finish(_LAST_WORDS)
        for server in servers:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await server.wait_closed()
        for closed in (self._servers, self._submission, self._submission_tls):
            closed.clear()
        self._names.shutdown(wait=False, cancel_futures=True)
        self._reception.close()
        if self._logins is not None:
            self._logins.close()

    @property
    def reception(self) -> Reception:
        """What all ways in from the network share: the rules, what is counted, and whether mail is taken."""
        return self._reception

    @property
    def addresses(self) -> tuple[Listen, ...]:
        """Where it listens for those in relay_networks, with the ports the system chose."""
        return _bound(self._servers)

    @property
    def submission_addresses(self) -> tuple[Listen, ...]:
        """Where it listens for those who log in after STARTTLS."""
        return _bound(self._submission)

    @property
    def submission_tls_addresses(self) -> tuple[Listen, ...]:
        """Where it listens for those who log in, under TLS from the first octet."""
        return _bound(self._submission_tls)

    @property
    def lost(self) -> tuple[Listen, ...]:
        """At which addresses it should listen and does not any more; of Unix sockets, see `mend`."""
        doors = (
            (self._servers, self._intake.smtp.listen),
            (self._submission, self._intake.submission.listen),
            (self._submission_tls, self._intake.submission.listen_tls),
        )
        pairs = [pair for servers, wanted in doors for pair in zip(servers, wanted, strict=False)]
        gone = (place for server, place in pairs if isinstance(place, Listen) and not server.is_serving())
        return () if self._reception.closing else tuple(gone)

    @property
    def trouble(self) -> str:
        """Why nobody can log in, or ""."""
        return self._logins.trouble if self._logins is not None else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached in the last minutes, and what should be known of the logins, in sentences."""
        note = self._logins.note if self._logins is not None else ""
        return (*filter(None, (note,)), *self._reception.notes)

    @property
    def sessions(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    @property
    def paused(self) -> str:
        """Why no mail is taken, or ""."""
        return self._reception.paused

    def pause(self, why: str) -> None:
        """Answer 452 to new mail until `resume`; transactions that have begun go on."""
        self._reception.paused = why

    def resume(self) -> None:
        """Take mail again."""
        self._reception.paused = ""

    def drain(self, is_drained: bool) -> None:
        """Send whoever comes, or begins a message, to another node; or no more. Messages that have begun go on."""
        self._reception.is_drained = is_drained

    @property
    def _farewell(self) -> Reply:
        return going_down(self._reception.hostname)

    def _arrive(self, way: "_Way", transport: asyncio.Transport) -> None:
        """Somebody has come: the client, or a proxy that is to say first whom it brings."""
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) and name else ""
        if not lies_in(peer, way.proxies):
            self._meet(way, transport, peer, known=way.known(peer))
            return

        def met(transport: asyncio.Transport, client: str, ahead: bytes) -> None:
            # Whom a proxy does not name it may have from anywhere: its own address stands for nothing but itself.
            self._meet(way, transport, client or peer, known=bool(client) and way.known(client), ahead=ahead)

        failed = self._refused(f"smtp {peer}", "no PROXY header")
        self._begin(transport, Introduction(self._meetings, met, failed))

    def _arrive_here(self, way: "_Way", transport: asyncio.Transport) -> None:
        """A program of this machine has come, over a Unix socket: it is trusted as one that comes from loopback is."""

        def met(transport: asyncio.Transport, user: str, ahead: bytes) -> None:
            self._meet(way, transport, user, known=any(map(way.known, _LOOPBACK)), ahead=ahead)

        failed = self._refused("smtp unix", "nobody knows who it is")
        self._begin(transport, LocalUser(self._meetings, met, failed, self._names))

    def _refused(self, peer: str, why: str) -> Callable[[str], None]:
        """Tells of somebody who has come in vain, once it is said what was wrong."""
        return lambda detail: self._reception.refusals.note(Refusal(peer=peer, why=why, detail=detail))

    def _begin(self, transport: asyncio.Transport, meeting: Meeting) -> None:
        """Find out who has come; of as many as this is done for at a time, who takes longest makes room."""
        if len(self._meetings) >= AT_ONCE:
            next(iter(self._meetings)).give_up(f"{AT_ONCE} others are waited for, and it took longest")
        transport.set_protocol(meeting)
        meeting.connection_made(transport)

    def _meet(self, way: "_Way", transport: asyncio.Transport, peer: str, *, known: bool, ahead: bytes = b"") -> None:
        """A client is there, of whom so much has come already: let it in, or say why not."""
        session = self._admit(way, transport, peer, known=known)
        if isinstance(session, Reply):
            if way.tls is None:  # before TLS there is no way to say anything
                transport.write(session.encoded())
            transport.close()
            return
        if way.tls is None:
            transport.set_protocol(session.connection)
            session.connection.connection_made(transport)
            if ahead:
                session.connection.data_received(ahead)
        else:
            tls = _Tls(session, way.tls)
            transport.set_protocol(tls)
            tls.connection_made(transport)
            tls.take(ahead)

    def _admit(self, way: "_Way", transport: asyncio.Transport, peer: str, *, known: bool) -> Session | Reply:
        """Let a client in that has just come, or give the reply with which it is turned away."""
        if self._reception.closing:
            return self._farewell
        if refusal := self._reception.occupancy.make_room(peer, known=known, door=way.door):
            detail = f"{self.sessions} are open"
            self._reception.refusals.note(Refusal(peer=f"smtp {peer}", why="too many sessions", detail=detail))
            return refusal
        session = way.make()
        session.arrive(transport, peer, known=known)
        return session

    async def _until_empty(self, seconds: float) -> None:
        if self._sessions:
            await asyncio.wait({session.ended for session in self._sessions}, timeout=seconds)


class _Way(NamedTuple):
    """A way in: for what, whom it knows by the address alone, the session it makes, and TLS where that comes first.

    Who comes from `proxies` says first whom he brings.
    """

    door: Door
    known: Callable[[str], bool]
    make: Callable[[], Session]
    proxies: tuple[Network, ...]
    tls: SSLContext | None = None


class _Doorkeeper(asyncio.Protocol):
    """Meets whoever has just come: a session is made only for those who are let in."""

    def __init__(self, arrive: Callable[[asyncio.Transport], None]) -> None:
        self._arrive = arrive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._arrive(cast("asyncio.Transport", transport))  # uvloop's are no instances of this class


class _Tls(SSLProtocol):
    """TLS from the first octet: the session begins when hands are shaken, and ends also when they never are.

    The loop's own way would make the session only then, and those who never finish the handshake would not be counted.
    """

    def __init__(self, session: Session, context: SSLContext) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            session.connection,
            context,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE,
            ssl_shutdown_timeout=SHUTDOWN,
        )
        self._session = session

    def take(self, data: bytes) -> None:
        """What has come before this was there to read it."""
        while data:
            room = self.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._session.depart()


def _nobody(peer: str) -> bool:  # noqa: ARG001
    """Whoever submits mail is known by a login, never by the address alone."""
    return False


def _why(error: OSError, place: Listen | UnixSocket) -> str:
    why = error.strerror or str(error)
    if isinstance(place, UnixSocket):
        return refusal(place.path.parent, "written to") if isinstance(error, PermissionError) else why
    if not isinstance(error, PermissionError) or place.port >= _FIRST_FREE_PORT:
        return why
    return (
        f"{why}: ports below {_FIRST_FREE_PORT} need the right CAP_NET_BIND_SERVICE; start it as root, give that right"
        " (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or listen on 2525"
    )


def _bound(servers: list[asyncio.Server]) -> tuple[Listen, ...]:
    bound = (socket.getsockname() for server in servers for socket in server.sockets)
    return tuple(Listen(str(name[0]), int(name[1])) for name in bound if isinstance(name, tuple))  # a path is none
