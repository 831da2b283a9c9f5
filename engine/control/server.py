"""The control server: HTTP and JSON on two Unix sockets in the spool, one for operators and one for looking.

`curl --unix-socket control.sock http://relay/v1/health` works too. Only the owner of the spool and, where the
settings name one, the members of a group may knock; the kernel says who it is. Behind `control-view.sock`, which may
have a group of its own, nothing can be asked that changes anything: who may only look cannot act with any program.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import msgspec
import msgspec.structs
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from engine.base.text import clean
from engine.control import asking, metrics, showing, views
from engine.control.asking import Wrong
from engine.control.door import Door
from engine.control.explaining import Explaining
from engine.control.following import Following
from engine.control.followups import FollowUps
from engine.control.peer import actor, view_socket
from engine.control.relay import Relay
from engine.control.seeing import DESTINATION_SORTS, HOST_SORTS, Seeing
from engine.control.verbs import Verbs
from engine.model.verbs import VERBS, Verb, parameters
from engine.queue.contract import SORTS, NoSuchMessage, QueueError

_log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FOLLOW = "/v1/events/follow"
VIEWERS_AT_ONCE = 4  # requests by the door for looking that are answered at a time; others wait for their turn
_READ_ONLY: web.AppKey[bool] = web.AppKey("read_only", bool)


class ControlServer:
    """Serves a relay's views and verbs on the socket at `path`, and its views alone on the one beside it.

    `group` may use the first, `view_group` the other. `answer_within` (seconds) bounds each request but the stream of
    events.
    """

    def __init__(
        self,
        path: Path,
        relay: Relay,
        *,
        group: str = "",
        view_group: str = "",
        answer_within: float = 20.0,
        sign_of_life: float = 15.0,
        patience: float = 10.0,
    ) -> None:
        self._answer_within = answer_within
        self._seeing = Seeing(relay)
        self._followups = FollowUps(relay.queue, relay.clock)
        self._verbs = Verbs(relay, self._followups)
        self._explaining = Explaining(relay)
        # Each door has streams of its own, and only so many viewers are answered at a time. An operator's orders wait
        # for none of them, for they have a thread of their own in the store; what only looks waits for its turn there,
        # whoever asks.
        self._following, self._viewers_following = (
            Following(relay.events, sign_of_life=sign_of_life, patience=patience) for _ in range(2)
        )
        self._viewers_turns = asyncio.Semaphore(VIEWERS_AT_ONCE)
        self._who_acts = f"{path.name}: its owner, root{f', and the members of {group}' if group else ''}"
        self._doors = (self._door(path, group), self._door(view_socket(path), view_group, read_only=True))

    async def start(self) -> None:
        """Listen. Raises OSError, saying what is in the way, when a socket cannot be made."""
        try:
            for door in self._doors:
                await door.open()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the streams, let running requests end within a second, and take the sockets away."""
        self._following.stop()
        self._viewers_following.stop()
        for door in self._doors:
            await door.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds are reached."""
        return tuple(filter(None, (door.note for door in self._doors)))

    async def mend(self) -> tuple[Path, ...]:
        """Make anew the sockets that were removed or replaced, and give them. Raises OSError."""
        return tuple([door.path for door in self._doors if await door.mend()])

    def _door(self, path: Path, group: str, *, read_only: bool = False) -> Door:
        app = web.Application(client_max_size=asking.BODY_LIMIT)
        app[_READ_ONLY] = read_only
        app.add_routes(self._looking(self._viewers_following) if read_only else [*self.looking, *self.acting])
        door = Door(path, group, app)
        app.middlewares.append(web.middleware(partial(self._guard, door)))
        return door

    # -- the routes -----------------------------------------------------------------------------------------------

    @property
    def looking(self) -> list[web.RouteDef]:
        """What changes nothing."""
        return self._looking(self._following)

    def _looking(self, following: Following) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self._metrics),
            web.get("/v1/health", self._health),
            web.get("/v1/overview", self._overview),
            web.get("/v1/queue", self._queue),
            web.get("/v1/messages/{number}", self._message),
            web.get("/v1/destinations", self._destinations),
            web.get("/v1/destinations/{name}", self._destination),
            web.get("/v1/relayers", self._relayers),
            web.get("/v1/relayers/{number}", self._transcript),
            web.get("/v1/hosts", self._hosts),
            web.get("/v1/hosts/{name}", self._host),
            web.get("/v1/reasons", self._reasons),
            web.get("/v1/suspensions", self._suspensions),
            web.get("/v1/overrides", self._overrides),
            web.get("/v1/explain/{subject}", self._explain),
            web.get("/v1/operations/{number}", self._operation),
            web.get("/v1/events", self._events),
            web.get(_FOLLOW, following.serve, allow_head=False),
        ]

    @property
    def acting(self) -> list[web.RouteDef]:
        """What does something, or looks what it would do."""
        return [web.post(f"/v1/{verb.word}", self._verb(verb)) for verb in VERBS]

    async def _guard(self, door: Door, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let a request be answered, and have it known who is being answered."""
        door.asks(request)
        try:
            return await self._answered(request, handler)
        finally:
            door.was_answered(request)

    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Bound every request in time, and turn every error into a refusal that says what to do next."""
        if request.app[_READ_ONLY] and request.method not in ("GET", "HEAD"):
            where, allowed = f"{request.method} {request.path}", f"to act is for who may use {self._who_acts}"
            return _refusal(403, "this is the way in for looking alone", where=where, allowed=allowed)
        is_followed = request.path == _FOLLOW
        takes_turns = request.app[_READ_ONLY] and not is_followed
        try:
            async with asyncio.timeout(None if is_followed else self._answer_within):
                async with self._viewers_turns if takes_turns else nullcontext():
                    return await handler(request)
        except Wrong as error:
            return _answer(error.refusal, error.status)
        except NoSuchMessage as error:
            return _refusal(404, str(error), not_found=True)
        except QueueError as error:
            return _refusal(503, str(error), where="queue")
        except web.HTTPException as error:
            return _http_refusal(request, error)
        except TimeoutError:
            what = f"the engine did not answer within {self._answer_within:g} s"
            return _refusal(503, what, allowed="an action may still be carried out: the events will tell")
        except ConnectionError:
            raise
        except (web.RequestPayloadError, HttpProcessingError):
            return _refusal(400, "the body is malformed", where=f"{request.method} {request.path}")
        except Exception:  # noqa: BLE001 - whatever failed, the asker gets an answer and the log the rest
            _log.exception("control: %s %s failed", request.method, clean(request.path, 200))
            return _refusal(500, "the engine failed to answer; its log says more")

    # -- see ------------------------------------------------------------------------------------------------------

    async def _metrics(self, request: web.Request) -> web.Response:
        asking.only(request)
        figures = await self._seeing.figures()
        return web.Response(body=metrics.exposition(figures), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        asking.only(request)
        health = await self._seeing.health()
        return _answer(msgspec.structs.replace(health, read_only=request.app[_READ_ONLY]))

    async def _overview(self, request: web.Request) -> web.Response:
        asking.only(request, "destinations", "hosts", "events")
        destinations = asking.number(request, "destinations", 50, 1, asking.LIMIT)
        hosts = asking.number(request, "hosts", 50, 1, asking.LIMIT)
        events = asking.number(request, "events", 50, 1, asking.LIMIT)
        overview = await self._seeing.overview(destinations, hosts, events)
        health = msgspec.structs.replace(overview.health, read_only=request.app[_READ_ONLY])
        return _answer(msgspec.structs.replace(overview, health=health))

    async def _queue(self, request: web.Request) -> web.Response:
        asking.only(request, "filter", "sort", "offset", "limit")
        named = asking.filter_of(request.query.get("filter", ""))
        sort = asking.sort(request, "id", SORTS)
        return _answer(await self._seeing.window(named, sort, *_window(request)))

    async def _message(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._seeing.message(asking.whole(request.match_info["number"], "id")))

    async def _destinations(self, request: web.Request) -> web.Response:
        asking.only(request, "match", "sort", "offset", "limit")
        sort = asking.sort(request, "-waiting", DESTINATION_SORTS)
        return _answer(await self._seeing.destinations(asking.match(request), sort, *_window(request)))

    async def _destination(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._seeing.destination(asking.destination(request.match_info["name"])))

    async def _relayers(self, request: web.Request) -> web.Response:
        asking.only(request, "ended")
        return _answer(self._seeing.relayers(asking.number(request, "ended", 0, 0, asking.LIMIT)))

    async def _transcript(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(self._seeing.transcript(asking.whole(request.match_info["number"], "id")))

    async def _hosts(self, request: web.Request) -> web.Response:
        asking.only(request, "match", "sort", "offset", "limit")
        sort = asking.sort(request, "back", HOST_SORTS)
        return _answer(await self._seeing.hosts(asking.match(request), sort, *_window(request)))

    async def _host(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._seeing.host(asking.host(request.match_info["name"])))

    async def _reasons(self, request: web.Request) -> web.Response:
        asking.only(request, "limit")
        return _answer(await self._seeing.reasons(asking.number(request, "limit", 100, 1, asking.LIMIT)))

    async def _suspensions(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._seeing.suspensions())

    async def _overrides(self, request: web.Request) -> web.Response:
        asking.only(request, "offset", "limit")
        return _answer(await self._seeing.overrides(*_window(request)))

    async def _explain(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._explaining.explain(request.match_info["subject"]))

    async def _operation(self, request: web.Request) -> web.Response:
        asking.only(request)
        return _answer(await self._followups.view(asking.whole(request.match_info["number"], "operation")))

    async def _events(self, request: web.Request) -> web.Response:
        asking.only(request, "before", "after", "message", "match", "limit")
        return _answer(
            await self._seeing.events(
                before=asking.optional(request, "before"),
                after=asking.optional(request, "after"),
                message=asking.optional(request, "message"),
                match=asking.match(request),
                limit=asking.number(request, "limit", 100, 1, asking.LIMIT),
            )
        )

    # -- ask ------------------------------------------------------------------------------------------------------

    def _verb(self, verb: Verb) -> _Handler:
        takes_nothing = not parameters(verb.ask)

        async def asked(request: web.Request) -> web.Response:
            ask = await asking.body(request, verb.ask, may_be_empty=takes_nothing)
            return _answer(await self._verbs.do(ask, await actor(request)))

        return asked


def _window(request: web.Request) -> tuple[int, int]:
    return asking.number(request, "offset", 0), asking.number(request, "limit", 100, 1, asking.LIMIT)


def _answer(view: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=showing.encoded(view),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _refusal(status: int, what: str, *, where: str = "", allowed: str = "", not_found: bool = False) -> web.Response:
    refusal = views.Refusal(
        what=clean(what, 400), where=clean(where, 200), allowed=clean(allowed, 400), not_found=not_found
    )
    return _answer(refusal, status)


def _http_refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    where = f"{request.method} {request.path}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return _refusal(
            405, "the method is not for this path", where=where, allowed=", ".join(sorted(error.allowed_methods))
        )
    if isinstance(error, web.HTTPNotFound):
        return _refusal(404, "there is no such path", where=where, allowed="see engine.control.client")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return _refusal(413, "the body is too large", where=where, allowed=f"up to {asking.BODY_LIMIT} bytes")
    return _refusal(error.status, error.reason or "the request is refused", where=where)
