"""The client of control.sock, for the console and the commands.

HTTP with JSON over a Unix socket, so that `curl --unix-socket control.sock http://relay/v1/health` works too. Who may
not open that, and may open the socket for looking beside it, looks through it. Nothing is asked of whoever listens
there and is neither the spool's owner nor root: in a folder that others may write to it could be anybody.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler

from engine.base.local_user import uid_behind
from engine.base.permission import refusal
from engine.control import views
from engine.control.peer import name_of, view_socket
from engine.model import verbs
from engine.model.destination import BadHost, Destination, Suspension
from engine.model.event import Event
from engine.model.message import Message, Selection, Window
from engine.model.node import NodeState
from engine.model.probe import Probed
from engine.model.reason import Reason
from engine.model.suppression import Entering, Suppress, Suppressions, Unsuppress

__all__ = ["Barred", "Client", "EngineUnreachable", "Impostor", "Refused", "answers", "control_socket", "view_socket"]

T = TypeVar("T")


def control_socket(spool: Path) -> Path:
    """Where the engine that owns a spool listens."""
    return spool / "control.sock"


class EngineUnreachable(Exception):
    """No engine answers on the control socket."""


class Barred(EngineUnreachable):
    """We may not open the control socket: an engine may well run behind it."""


class Impostor(EngineUnreachable):
    """Who listens on the control socket is neither the spool's owner nor root."""


class Refused(Exception):
    """The engine did not do what was asked; `refusal` says what is wrong, where, and what is allowed."""

    def __init__(self, refusal: views.Refusal) -> None:
        super().__init__(": ".join(part for part in (refusal.where, refusal.what, refusal.allowed) if part))
        self.refusal = refusal


class Client:
    """One console's or command's way to the engine. Every call raises EngineUnreachable or Refused.

    `timeout` (seconds) bounds each call as a whole; an engine that does not answer in time counts as unreachable.
    Use it as an async context manager.
    """

    def __init__(self, socket: Path, timeout: float = 30.0) -> None:
        self._socket = socket
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url="http://relay/v1/",
            connector=_Way(self._socket),
            timeout=self._timeout,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # -- see ------------------------------------------------------------------------------------------------------

    async def health(self) -> views.HealthView:
        """One line of health."""
        return await self._get(views.HealthView, "health")

    async def overview(self, destinations: int = 50, hosts: int = 50, events: int = 50) -> views.OverviewView:
        """The four panes and the health line in one snapshot, with up to so many destinations, bad hosts and events."""
        return await self._get(views.OverviewView, "overview", destinations=destinations, hosts=hosts, events=events)

    async def queue(self, filter: str = "", sort: str = "id", offset: int = 0, limit: int = 100) -> Window:
        """A window of the queue; `sort` is a field (see engine.queue.contract.SORTS), "-" before it for descending."""
        return await self._get(Window, "queue", filter=filter, sort=sort, offset=offset, limit=limit)

    async def message(self, number: int) -> Message:
        """One message: envelope, headers, attempts, events."""
        return await self._get(Message, f"messages/{number}")

    async def destinations(
        self, match: str = "", sort: str = "-waiting", offset: int = 0, limit: int = 100
    ) -> views.DestinationsView:
        """A window of the destinations whose name contains `match`."""
        return await self._get(
            views.DestinationsView, "destinations", match=match, sort=sort, offset=offset, limit=limit
        )

    async def destination(self, name: str) -> Destination:
        """One destination."""
        return await self._get(Destination, f"destinations/{name}")

    async def relayers(self, ended: int = 0) -> tuple[views.RelayerView, ...]:
        """The live relayers, then up to `ended` of those that ended last."""
        return await self._get(tuple[views.RelayerView, ...], "relayers", ended=ended)

    async def transcript(self, relayer: int, node: str = "") -> views.TranscriptView:
        """What a relayer (`node`: of which, where not the one asked) and its peer have said, also when it has ended."""
        return await self._get(views.TranscriptView, f"relayers/{relayer}", node=node or None)

    async def nodes(self) -> tuple[NodeState, ...]:
        """The engines that share the queue, by name; () where it is one engine's alone."""
        return await self._get(tuple[NodeState, ...], "nodes")

    async def hosts(self, match: str = "", sort: str = "back", offset: int = 0, limit: int = 100) -> views.HostsView:
        """A window of the MX hosts marked bad; `match` are words in name, maker, note or last reply, `!` leaves out.

        `sort` is `back` (the first to be back first), `host` or `waiting`, "-" before it for descending.
        """
        return await self._get(views.HostsView, "hosts", match=match, sort=sort, offset=offset, limit=limit)

    async def host(self, name: str) -> BadHost:
        """One MX host that is marked bad; refused with `not_found` when it is not."""
        return await self._get(BadHost, f"hosts/{quote(name, safe='')}")

    async def reasons(self, limit: int = 100) -> tuple[Reason, ...]:
        """Why mail waits: what was said last, in groups, up to `limit` of them, the one with most entries first."""
        return await self._get(tuple[Reason, ...], "reasons", limit=limit)

    async def suspensions(self) -> tuple[Suspension, ...]:
        """The suspensions in force."""
        return await self._get(tuple[Suspension, ...], "suspensions")

    async def overrides(self, offset: int = 0, limit: int = 1000) -> tuple[views.StandingView, ...]:
        """What stands until a time: suspensions, hold rules, host marks, overrides; the first to end first."""
        return await self._get(tuple[views.StandingView, ...], "overrides", offset=offset, limit=limit)

    async def suppressed(self, match: str = "", after: str = "", limit: int = 1000) -> Suppressions:
        """The addresses on the suppression list that have `match` in them, behind the address `after`."""
        return await self._get(Suppressions, "suppressed", match=match, after=after, limit=limit)

    async def explain(self, subject: str, node: str = "") -> views.ExplainView:
        """Why a message (48213, 48213.2), or mail for an address or domain, is not moving, or what would happen.

        `node`: as another one sees it than is asked.
        """
        return await self._get(views.ExplainView, f"explain/{quote(subject, safe='@')}", node=node or None)

    async def operation(self, number: int) -> views.FollowUpView:
        """What has become of what an action touched: `follow` of its result is the number."""
        return await self._get(views.FollowUpView, f"operations/{number}")

    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        """Events by `seq`: the newest `limit` (below `before`), or the first after `after`.

        `match`: words that must all stand in kind, addresses, names, text or reply; `!` before one leaves out.
        """
        return await self._get(
            tuple[Event, ...],
            "events",
            before=before,
            after=after,
            message=message,
            match=match,
            limit=limit,
        )

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Every event from now on, as it happens. Ends when the engine does.

        An engine that gives no sign of life for a minute counts as unreachable.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
        try:
            async with self._open.get("events/follow", timeout=timeout) as response:
                if response.status != 200:
                    raise self._refused(await response.read())
                async for line in response.content:
                    if line.strip():  # an empty line is the server's sign of life
                        yield msgspec.json.decode(line, type=Event)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        except msgspec.DecodeError as error:
            raise self._stranger(error) from error

    # -- ask ------------------------------------------------------------------------------------------------------

    async def ask(self, ask: verbs.Ask) -> verbs.Result:
        """Have a verb carried out (see engine.model.verbs). Refused with `not_found` where nothing matches."""
        return await self._post(verbs.Result, ask)

    async def suppress(self, ask: Suppress) -> Entering:
        """Enter addresses in the suppression list, all of them or none."""
        return await self._post_to("suppress", Entering, ask)

    async def unsuppress(self, address: str) -> Entering:
        """Take an address off the suppression list; refused with `not_found` where it is not on it."""
        return await self._post_to("unsuppress", Entering, Unsuppress(address=address))

    async def would(self, ask: verbs.DryAsk) -> Selection:
        """What an ask would touch; it touches nothing. Refused with `not_found` where there is nothing to end."""
        return await self._post(Selection, verbs.dry(ask))

    async def probe(self, host: str, node: str = "") -> Probed:
        """Speak to a host ("HOST" or "HOST:PORT") without sending it mail; `node`: from another one than is asked."""
        return await self._post(Probed, verbs.Probe(host=host, node=node))

    # -- the wire -------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        return self._session

    async def _get(self, kind: type[T], path: str, **query: str | int | None) -> T:
        params = {name: str(value) for name, value in query.items() if value is not None}
        return await self._call(kind, "GET", path, params=params)

    async def _post(self, kind: type[T], ask: verbs.Ask) -> T:
        return await self._post_to(verbs.verb_of(ask).word, kind, ask)

    async def _post_to(self, path: str, kind: type[T], ask: verbs.Ask) -> T:
        headers = {"Content-Type": "application/json"}
        return await self._call(kind, "POST", path, data=msgspec.json.encode(ask), headers=headers)

    async def _call(self, kind: type[T], method: str, path: str, **request: Any) -> T:
        try:
            async with self._open.request(method, path, **request) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status != 200:
            raise self._refused(body)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise self._stranger(error) from error

    def _unreachable(self, error: Exception) -> EngineUnreachable:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, _Stranger):
            return Impostor(str(cause))
        if isinstance(cause, PermissionError):
            return Barred(refusal(self._socket, "opened"))
        why = (cause.strerror if isinstance(cause, OSError) else "") or str(cause) or "timed out"
        return EngineUnreachable(f"no engine answers on {self._socket}: {why}")

    def _refused(self, body: bytes) -> Exception:
        try:
            return Refused(msgspec.json.decode(body, type=views.Refusal))
        except msgspec.DecodeError as error:
            return self._stranger(error)

    def _stranger(self, error: Exception) -> EngineUnreachable:
        return EngineUnreachable(f"what answers on {self._socket} is no engine of this version: {error}")


def answers(control: Path) -> bool:
    """Whether somebody takes connections at a control socket, or at the one for looking where we may not open that."""
    for path in (control, view_socket(control)):
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(path))
            except PermissionError:
                continue
            except OSError:
                return False
            return True
    return False


class _Stranger(OSError):
    """Who listens is nobody whom we may ask."""


class _Way(aiohttp.UnixConnector):
    """Connects to the operators' socket, or where we may not open that, to the one for looking."""

    def __init__(self, control: Path) -> None:
        super().__init__(path=str(control))
        self._ways = (control, view_socket(control))

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],  # noqa: ARG002 (what we override has it)
        timeout: aiohttp.ClientTimeout,
    ) -> ResponseHandler:
        barred: PermissionError | None = None
        try:
            async with asyncio.timeout(timeout.sock_connect):
                for way in self._ways:
                    try:
                        transport, protocol = await self._loop.create_unix_connection(self._factory, str(way))
                    except PermissionError as error:
                        barred = barred or error
                    except OSError:
                        if barred is None:
                            raise
                    else:
                        _see_who_listens(way, transport)
                        return protocol
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise UnixClientConnectorError(self.path, req.connection_key, error) from error
        assert barred is not None
        raise UnixClientConnectorError(self.path, req.connection_key, barred) from barred


def _see_who_listens(path: Path, transport: asyncio.BaseTransport) -> None:
    """Nothing was sent yet. Raises _Stranger, and then the connection is closed."""
    peer = transport.get_extra_info("socket")
    uid = uid_behind(peer.fileno()) if peer is not None else None
    owner: int | None = None
    with contextlib.suppress(OSError):
        owner = path.parent.stat().st_uid
    if uid is not None and uid in (owner, 0):
        return
    transport.close()
    listens = "nobody knows whose" if uid is None else f"run by {name_of(uid)}"
    whose = "" if owner is None else f", and the spool is {name_of(owner)}'s"
    raise _Stranger(
        f"what listens on {path} is {listens}{whose}: nothing was asked of it; let root look into that folder"
    )
