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
from engine.control import metrics, presentation, requests, views
from engine.control.answering import Answering
from engine.control.door import Door
from engine.control.explanations import Explanations
from engine.control.followups import FollowUps
from engine.control.peer import actor, local_user, view_socket
from engine.control.queries import DESTINATION_SORTS, HOST_SORTS, Queries
from engine.control.relay import Relay
from engine.control.requests import Wrong
from engine.control.streams import EventStreams
from engine.control.suppressing import SuppressionList
from engine.control.verbs import Verbs
from engine.intake.http.problem import Problem
from engine.intake.http.server import accepted
from engine.model.suppression import Suppress, Unsuppress
from engine.model.verbs import VERBS, Verb, parameters
from engine.queue.contract import SORTS
from engine.queue.errors import NoSuchMessage, QueueError

log = logging.getLogger(__name__)

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
        self._counter = relay.counter
        self._queries = Queries(relay)
        self._followups = FollowUps(relay.queue, relay.clock)
        self._verbs = Verbs(relay, self._followups)
        self._explanations = Explanations(relay)
        self._suppression = SuppressionList(relay)
        relay.queue.nodes.on_request = Answering(self._queries, self._explanations, self._verbs).answer
        elsewhere = self._queries if relay.queue.nodes.name else None
        # Each door has streams of its own, and only so many viewers are answered at a time. An operator's orders wait
        # for none of them, for they have a thread of their own in the store; what only looks waits for its turn there,
        # whoever asks.
        self._streams, self._viewers_streams = (
            EventStreams(relay.events, elsewhere=elsewhere, sign_of_life=sign_of_life, patience=patience)
            for _ in range(2)
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
        self._streams.stop()
        self._viewers_streams.stop()
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
        app = web.Application(client_max_size=requests.BODY_LIMIT)
        app[_READ_ONLY] = read_only
        everything = [*self.looking, *self.acting, *self.listing, *self.posting]
        app.add_routes(self._looking(self._viewers_streams) if read_only else everything)
        door = Door(path, group, app)
        app.middlewares.append(web.middleware(partial(self._guard, door)))
        return door

    # -- the routes -----------------------------------------------------------------------------------------------

    @property
    def looking(self) -> list[web.RouteDef]:
        """What changes nothing."""
        return self._looking(self._streams)

    def _looking(self, streams: EventStreams) -> list[web.RouteDef]:
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
            web.get("/v1/nodes", self._nodes),
            web.get("/v1/hosts", self._hosts),
            web.get("/v1/hosts/{name}", self._host),
            web.get("/v1/reasons", self._reasons),
            web.get("/v1/suspensions", self._suspensions),
            web.get("/v1/overrides", self._overrides),
            web.get("/v1/explain/{subject}", self._explain),
            web.get("/v1/operations/{number}", self._operation),
            web.get("/v1/suppressed", self._suppressed),
            web.get("/v1/events", self._events),
            web.get(_FOLLOW, streams.serve, allow_head=False),
        ]

    @property
    def acting(self) -> list[web.RouteDef]:
        """What does something, or looks what it would do."""
        return [web.post(f"/v1/{verb.word}", self._verb(verb)) for verb in VERBS]

    @property
    def listing(self) -> list[web.RouteDef]:
        """What changes the suppression list: many addresses at a time, and so no verb that one types."""
        return [web.post("/v1/suppress", self._suppress), web.post("/v1/unsuppress", self._unsuppress)]

    @property
    def posting(self) -> list[web.RouteDef]:
        """What brings mail."""
        return [web.post("/v1/messages", self._post)]

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
        except Problem as error:
            return _of_problem(error)
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
        except Exception:
            log.exception("control: %s %s failed", request.method, clean(request.path, 200))
            return _refusal(500, "the engine failed to answer; its log says more")

    # -- see ------------------------------------------------------------------------------------------------------

    async def _metrics(self, request: web.Request) -> web.Response:
        requests.only(request)
        figures = await self._queries.figures()
        return web.Response(body=metrics.exposition(figures), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        requests.only(request)
        health = await self._queries.health()
        return _answer(msgspec.structs.replace(health, read_only=request.app[_READ_ONLY]))

    async def _overview(self, request: web.Request) -> web.Response:
        requests.only(request, "destinations", "hosts", "events")
        destinations = requests.number(request, "destinations", 50, 1, requests.LIMIT)
        hosts = requests.number(request, "hosts", 50, 1, requests.LIMIT)
        events = requests.number(request, "events", 50, 1, requests.LIMIT)
        overview = await self._queries.overview(destinations, hosts, events)
        health = msgspec.structs.replace(overview.health, read_only=request.app[_READ_ONLY])
        return _answer(msgspec.structs.replace(overview, health=health))

    async def _queue(self, request: web.Request) -> web.Response:
        requests.only(request, "filter", "sort", "offset", "limit")
        named = requests.filter_of(request.query.get("filter", ""))
        sort = requests.sort(request, "id", SORTS)
        return _answer(await self._queries.window(named, sort, *_window(request)))

    async def _message(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._queries.message(requests.whole(request.match_info["number"], "id")))

    async def _destinations(self, request: web.Request) -> web.Response:
        requests.only(request, "match", "sort", "offset", "limit")
        sort = requests.sort(request, "-waiting", DESTINATION_SORTS)
        return _answer(await self._queries.destinations(requests.match(request), sort, *_window(request)))

    async def _destination(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._queries.destination(requests.destination(request.match_info["name"])))

    async def _relayers(self, request: web.Request) -> web.Response:
        requests.only(request, "ended")
        return _answer(await self._queries.relayers(requests.number(request, "ended", 0, 0, requests.LIMIT)))

    async def _transcript(self, request: web.Request) -> web.Response:
        requests.only(request, "node")
        number = requests.whole(request.match_info["number"], "id")
        return _answer(await self._queries.transcript(number, requests.node(request.query.get("node", ""))))

    async def _nodes(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._queries.nodes())

    async def _hosts(self, request: web.Request) -> web.Response:
        requests.only(request, "match", "sort", "offset", "limit")
        sort = requests.sort(request, "back", HOST_SORTS)
        return _answer(await self._queries.hosts(requests.match(request), sort, *_window(request)))

    async def _host(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._queries.host(requests.host(request.match_info["name"])))

    async def _reasons(self, request: web.Request) -> web.Response:
        requests.only(request, "limit")
        return _answer(await self._queries.reasons(requests.number(request, "limit", 100, 1, requests.LIMIT)))

    async def _suspensions(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._queries.suspensions())

    async def _overrides(self, request: web.Request) -> web.Response:
        requests.only(request, "offset", "limit")
        return _answer(await self._queries.overrides(*_window(request)))

    async def _suppressed(self, request: web.Request) -> web.Response:
        requests.only(request, "match", "after", "limit")
        limit = requests.number(request, "limit", 100, 1, requests.LIMIT)
        after = request.query.get("after", "")
        return _answer(await self._suppression.window(requests.match(request), after, limit))

    async def _explain(self, request: web.Request) -> web.Response:
        requests.only(request, "node")
        node = requests.node(request.query.get("node", ""))
        return _answer(await self._explanations.explain(request.match_info["subject"], node))

    async def _operation(self, request: web.Request) -> web.Response:
        requests.only(request)
        return _answer(await self._followups.view(requests.whole(request.match_info["number"], "operation")))

    async def _events(self, request: web.Request) -> web.Response:
        requests.only(request, "before", "after", "message", "match", "limit")
        return _answer(
            await self._queries.events(
                before=requests.optional(request, "before"),
                after=requests.optional(request, "after"),
                message=requests.optional(request, "message"),
                match=requests.match(request),
                limit=requests.number(request, "limit", 100, 1, requests.LIMIT),
            )
        )

    # -- ask ------------------------------------------------------------------------------------------------------

    async def _suppress(self, request: web.Request) -> web.Response:
        ask = await requests.body(request, Suppress)
        return _answer(await self._suppression.enter(ask, await actor(request)))

    async def _unsuppress(self, request: web.Request) -> web.Response:
        ask = await requests.body(request, Unsuppress)
        return _answer(await self._suppression.remove(ask, await actor(request)))

    def _verb(self, verb: Verb) -> _Handler:
        takes_nothing = not parameters(verb.ask)

        async def asked(request: web.Request) -> web.Response:
            ask = await requests.body(request, verb.ask, may_be_empty=takes_nothing)
            return _answer(await self._verbs.do(ask, await actor(request)))

        return asked

    async def _post(self, request: web.Request) -> web.Response:
        """A message of whoever may act here: he may send as anybody, as he may from the drop folder."""
        if self._counter is None:
            raise Problem(503, "no mail is taken here")
        return accepted(await self._counter.take(request, await local_user(request)))


def _window(request: web.Request) -> tuple[int, int]:
    return requests.number(request, "offset", 0), requests.number(request, "limit", 100, 1, requests.LIMIT)


def _answer(view: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=presentation.encoded(view),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _refusal(status: int, what: str, *, where: str = "", allowed: str = "", not_found: bool = False) -> web.Response:
    refusal = views.Refusal(
        what=clean(what, 400), where=clean(where, 200), allowed=clean(allowed, 400), not_found=not_found
    )
    return _answer(refusal, status)


def _of_problem(problem: Problem) -> web.Response:
    """Why a message is not taken."""
    answer = _refusal(problem.status, problem.what, where=problem.where, allowed=problem.allowed)
    if problem.retry:
        answer.headers["Retry-After"] = str(problem.retry)
    return answer


def _http_refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    where = f"{request.method} {request.path}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return _refusal(
            405, "the method is not for this path", where=where, allowed=", ".join(sorted(error.allowed_methods))
        )
    if isinstance(error, web.HTTPNotFound):
        return _refusal(404, "there is no such path", where=where, allowed="see engine.control.client")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return _refusal(413, "the body is too large", where=where, allowed=f"up to {requests.BODY_LIMIT} bytes")
    return _refusal(error.status, error.reason or "the request is refused", where=where)
