"""Control requests: whatever is asked, in whatever way, is answered or refused in JSON, and the engine stays well."""

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import Iterator
from urllib.parse import quote

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from engine.base.text import clean
from engine.control import views
from engine.model.suppression import Suppress, Unsuppress
from engine.model.verbs import VERBS, Ask
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Script
from engine.smtpclient.dialler import TcpDialler
from tests.clock import FakeClock
from tests.fuzz.fuzzing import Fault, Fuzzer
from tests.scenarios.relaying import relaying

PATIENCE = 25.0  # seconds an answer may take: the server bounds each request by 20
FOLLOW = "/v1/events/follow"

ASKS: dict[str, type[Ask]] = {verb.word: verb.ask for verb in VERBS}
ASKS |= {"suppress": Suppress, "unsuppress": Unsuppress}
_SEEN = (
    "/metrics", "/v1/health", "/v1/overview", "/v1/queue", "/v1/messages/{}", "/v1/destinations", "/v1/destinations/{}",
    "/v1/relayers", "/v1/relayers/{}", "/v1/hosts", "/v1/reasons", "/v1/suspensions", "/v1/overrides", "/v1/explain/{}",
    "/v1/operations/{}", "/v1/nodes", "/v1/events", FOLLOW, "/", "/v2/health", "/v1/{}", "/v1/../metrics", "//", "*",
)  # fmt: skip
_WORDS = (
    "", "1", "0", "-1", "9" * 18, "9" * 40, "1.1", "example.org", "*", "bob@example.org", "domain=example.org",
    "id=1", "<>", "state=held", "-waiting", "id", "-size", "mx.example.org", "127.0.0.1", "127.0.0.1:1", "[::1]:1",
    "relay.example.net", "true", "1e309", "NaN", "\u202e", "\x1b[2J", "\x00", "%", "..", "ü.example", "a" * 300, "'",
    '"', "why=\"x\"", "!a", "root", "1h", "🎉",
)  # fmt: skip
_FIELDS = (
    "filter", "sort", "offset", "limit", "match", "before", "after", "message", "destinations", "events", "ended",
    "node", "dry_run", "x",
)  # fmt: skip
_METHODS = ("GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get")
_HEADERS = (
    ("Content-Type", "application/json"), ("Content-Type", "text/plain"),
    ("Host", "x"), ("Expect", "100-continue"), ("Expect", "x"), ("Accept-Encoding", "gzip"), ("X-User", "root"),
    ("Upgrade", "websocket"), ("Range", "bytes=0-1"), ("If-None-Match", "*"), ("Cookie", "a=b; c"),
    ("X", "y" * 5000), ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"),
)  # fmt: skip


class Request(Struct, frozen=True):
    """One request as it goes over the wire; `raw` stands for all of it, however little it is HTTP."""

    method: str = "GET"
    target: str = "/v1/health"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    raw: bytes = b""


_word = st.one_of(st.sampled_from(_WORDS), st.text(max_size=8))
_value: st.SearchStrategy[object] = st.one_of(
    _word, st.integers(-2, 5), st.integers(), st.floats(), st.booleans(), st.none(),
    st.sampled_from((60.0, 3600, 2**63, 1e308)), st.lists(_word, max_size=2),
)  # fmt: skip


def _body_of(kind: type[Ask]) -> st.SearchStrategy[bytes]:
    """A body of the fields that an ask has, more or less, with values that fit, more or less."""
    names = msgspec.structs.fields(kind)
    usual = {one.name: _plausible(one.name) for one in names}
    objects = st.one_of(
        st.fixed_dictionaries({}, optional=usual),
        st.fixed_dictionaries(usual),
        st.fixed_dictionaries({}, optional={**dict.fromkeys(usual, _value), "x": _value}),
        st.recursive(
            _value, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_word, inner, max_size=3), max_leaves=6
        ),
    )
    return st.one_of(
        objects.map(_json),
        objects.map(_json),
        st.sampled_from((b"", b"{", b"[" * 5000, b"\xff", b"null", b"{}", b'{"filter":1e999}')),
    )


def _json(value: object) -> bytes:
    """As JSON; what has surrogates or is no number stands there as it may come."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plausible(name: str) -> st.SearchStrategy[object]:
    """A value that a field may have."""
    match name:
        case "dry_run" | "now":
            return st.booleans()
        case "newest" | "rule" | "relayer" | "operation":
            return st.one_of(st.integers(0, 5), st.none())
        case "seconds":
            return st.sampled_from((60.0, 61, 3600.0, 0, -1, 1e9))
        case "filter":
            return st.sampled_from(
                ("", "domain=example.org", "id=1", "from=ann@example.com", "state=held", "x", "id=1,2", "bob")
            )
        case "destination":
            return st.sampled_from(("example.org", "*", "other.example", "ü.example", "[127.0.0.1]"))
        case "host" | "to":
            return st.sampled_from(
                ("mx.example.org", "127.0.0.1:1", "[::1]:1", "relay.example.net", "no.example", "127.0.0.1")
            )
    return _word


_segment = _word.map(lambda word: quote(word, safe=""))
_query = st.lists(st.tuples(st.sampled_from(_FIELDS), _segment).map("=".join), max_size=3).map("&".join)
_target = st.builds(
    lambda path, segment, query: path.replace("{}", segment) + (f"?{query}" if query else ""),
    st.sampled_from(_SEEN), _segment, _query,
)  # fmt: skip
_headers = st.lists(st.sampled_from(_HEADERS), max_size=2).map(tuple)


class ControlRequests(Fuzzer[Request]):
    """control requests: paths, queries, bodies and headers of any sort, at a real engine with some mail."""

    FOUND = (
        Request(),
        Request(raw=b"GET /v1/health HTTP/1.1\r\n\r\n"),
        Request("POST", "/v1/drop", (), b'{"filter":"","dry_run":true}'),
        Request("POST", "/v1/probe", (), b'{"host":"127.0.0.1:1"}'),
        Request("POST", "/v1/suspend", (), b'{"destination":"*","seconds":NaN,"note":""}'),
    )
    SHORT = 200

    @property
    def cases(self) -> st.SearchStrategy[Request]:
        acts = st.sampled_from(sorted(ASKS)).flatmap(
            lambda verb: st.builds(Request, st.just("POST"), st.just(f"/v1/{verb}"), _headers, _body_of(ASKS[verb]))
        )
        return st.one_of(
            acts,
            acts,
            st.builds(Request, st.just("GET"), _target, _headers),
            st.builds(Request, st.sampled_from(_METHODS), _target, _headers, st.binary(max_size=20)),
            st.builds(
                Request,
                raw=st.one_of(st.binary(min_size=1, max_size=40), st.just(b"GET / HTTP/1.1\r\nA:\r\n b\r\n\r\n")),
            ),
        )

    async def open(self) -> None:
        self._open = contextlib.AsyncExitStack()
        self._open.enter_context(_loopback_alone())
        internet = await self._open.enter_async_context(Internet(clock=FakeClock()))
        for domain in ("example.org", "other.example"):
            await internet.add(domain, mx=[(10, f"mx.{domain}", Script({"RCPT": "450 4.2.1 later"}))])
        self._relay = await self._open.enter_async_context(relaying(internet, clock=FakeClock()))
        await self._relay.send("bob@example.org", "cy@other.example", times=3)
        await self._relay.settled()
        self._path = str(self._relay.spool / "control.sock")
        self._draw = random.Random(1)

    async def close(self) -> None:
        await self._open.aclose()

    async def check(self, case: Request) -> None:
        status, headers, body = await self._asked(case)
        is_http = not case.raw
        if status == 0 and not is_http:
            return  # hung up on: it was no request
        if not (200 <= status < 300 or 400 <= status < 500):
            raise Fault(f"answered with {status}: {body[:200]!r}")
        self.went_well += status == 200
        if case.method != "HEAD" and is_http and not _is_metrics(case) and not _is_stream(case, status):
            _is_json(status, headers, body)
        if self._relay.engine.trouble:
            raise Fault(f"the engine is not well: {self._relay.engine.trouble}")
        if self._draw.random() < 0.05 and (await self._asked(Request()))[0] != 200:
            raise Fault("health is not answered any more")

    async def _asked(self, case: Request) -> tuple[int, bytes, bytes]:
        """Send it over a connection of its own; status (0: none), headers and body of the answer."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(case.raw or _on_the_wire(case))
            if case.raw:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                head = await _head(reader)
                while head.startswith(b"HTTP/1.1 1"):  # to be continued
                    head = await _head(reader)
                if not head:
                    return 0, b"", b""
                status = int(head.split(b" ", 2)[1])
                body = b"" if _is_stream(case, status) else await reader.read()
            return status, head.lower(), body
        except TimeoutError:
            raise Fault("no answer") from None
        except ConnectionError:
            return 0, b"", b""
        finally:
            writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Fault(f"half an answer: {error.partial[:100]!r}") from None
        return b""


def _on_the_wire(case: Request) -> bytes:
    """HTTP/1.1, the connection closed after it."""
    kept = [(name, value) for name, value in case.headers]
    if not any(name == "Host" for name, _ in kept):
        kept.append(("Host", "relay"))
    kept.append(("Connection", "close"))
    lines = [f"{case.method} {case.target} HTTP/1.1", *(f"{name}: {value}" for name, value in kept)]
    return "\r\n".join((*lines, f"Content-Length: {len(case.body)}", "", "")).encode() + case.body


def _is_metrics(case: Request) -> bool:
    return case.target.partition("?")[0].endswith("metrics")


def _is_stream(case: Request, status: int) -> bool:
    return case.target.partition("?")[0] == FOLLOW and status == 200


def _is_json(status: int, headers: bytes, body: bytes) -> None:
    """An answer is JSON; a refusal says what is wrong, in words that can be shown."""
    if status in (400, 417) and b"text/plain" in headers:
        return  # no HTTP that it knows: the library answers by itself
    if b"application/json" not in headers:
        raise Fault(f"{status} and no JSON: {body[:200]!r}")
    if status < 400:
        msgspec.json.decode(body)
        return
    refusal = msgspec.json.decode(body, type=views.Refusal)
    said = (refusal.what, refusal.where, refusal.allowed)
    if not refusal.what or any(clean(one) != one for one in said):
        raise Fault(f"a refusal that says nothing, or cannot be shown: {refusal}")


@contextlib.contextmanager
def _loopback_alone() -> Iterator[None]:
    """Whatever the fuzzer asks for, nobody but this machine is connected to."""
    dial = TcpDialler.dial

    async def dial_here(self: TcpDialler, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        if not address.startswith("127.") and address != "::1":
            raise ConnectionRefusedError(111, "only this machine is connected to")
        return await dial(self, address, port, timeout, source)

    TcpDialler.dial = dial_here  # type: ignore[method-assign]
    try:
        yield
    finally:
        TcpDialler.dial = dial  # type: ignore[method-assign]
