"""The sandbox's policy server: MTA-STS policies over HTTPS (RFC 8461 3.3), given well or in every usual wrong way."""

import asyncio
import ssl
from collections import Counter

from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.certificates import Certificate, Certificates
from engine.sandbox.serving import Connections

_PREFIX = "mta-sts."
_PATIENCE = 10.0  # seconds for a request to arrive
_MOST_CONNECTIONS = 50


class Answer(Struct, frozen=True, kw_only=True):
    """How a domain's policy is given. `pause` is seconds before the answer; `location` is where a redirect leads."""

    body: bytes
    status: int = 200
    type: str = "text/plain"
    location: str = ""
    certificate: Certificate = "good"
    pause: float = 0.0


class PolicyServer:
    """One HTTPS server for all domains, told apart by the name they are asked by. `asked` counts requests by domain."""

    def __init__(self, certificates: Certificates, *, address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.asked: Counter[str] = Counter()
        self._certificates = certificates
        self._answers: dict[str, Answer] = {}
        self._server: asyncio.Server | None = None
        self._open = Connections(_MOST_CONNECTIONS)

    def say(self, domain: str, text: str | bytes) -> None:
        """Give this policy for the domain, in the way it was given before."""
        body = text.encode() if isinstance(text, str) else text
        before = self._answers.get(domain)
        self._answers[domain] = Answer(body=body) if before is None else replace(before, body=body)

    def behave(self, domain: str, answer: Answer) -> None:
        """Answer for the domain just so."""
        self._answers[domain] = answer

    async def start(self) -> None:
        """Listen on a free port, unless it does already."""
        if self._server is None:
            self._open.begin()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.sni_callback = self._choose
            self._server = await asyncio.start_server(self._accept, self.address, self.port, ssl=context)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end what is under way; `start` listens on the same port again."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        await self._open.end()
        await server.wait_closed()

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """The certificate of the host that was asked for (SNI)."""
        host = name or "no-name.example"
        answer = self._answers.get(host.removeprefix(_PREFIX))
        connection.context = self._certificates.context(host, answer.certificate if answer else "good")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open.takes(writer):
            self._open.serve(writer, self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(await self._answer(request))
            await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            return  # the client has gone, or has nothing to ask
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _answer(self, request: str) -> bytes:
        first, *fields = request.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        domain = headers.get("host", "").partition(":")[0].removeprefix(_PREFIX)
        self.asked[domain] += 1
        answer = self._answers.get(domain)
        if answer is None or not first.startswith("GET /.well-known/mta-sts.txt "):
            answer = Answer(body=b"not here", status=404)
        await asyncio.sleep(answer.pause)
        head = [
            f"HTTP/1.1 {answer.status} As Told",
            f"Content-Type: {answer.type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            *([f"Location: {answer.location}"] if answer.location else []),
        ]
        return "\r\n".join([*head, "", ""]).encode() + answer.body
