"""How fast mail goes over ONE connection to a host that is 50 ms away, each way (RFC 2920), in one run

    smarthost           through `smarthost serve`
    postfix             through a Postfix of its own, which opens a connection for each message
    postfix, cached     the same, with connections kept open between messages (`smtp_connection_cache_...`)

in turn, several rounds, to smtp-sink behind a proxy that holds back every byte; a round trip is 100 ms. Timed from the
first message handed to the relay until the sink has the last. Postfix needs root. Where it shows two connections at
once, the other is one that it has said QUIT on, or that it keeps.

    uv run python -m tests.bench.pipelining [MESSAGES] [ROUNDS]
"""

import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from tests.bench.relaying import SINK, postfix, say, timed
from tests.interop.needs import program
from tests.serving import free_port, serving

DELAY = 0.050  # seconds, each way

_ONE = """
smtp_destination_concurrency_limit = 1
initial_destination_concurrency = 1
smtp_connection_cache_on_demand = {cached}
smtp_connection_cache_destinations = {destinations}
"""


class FarAway:
    """A proxy on loopback that passes on every byte `DELAY` seconds after it came."""

    def __init__(self, port: int, sink_port: int) -> None:
        self.port = port
        self.connections = 0
        self.most_at_once = 0
        self.sink_port = sink_port
        self._open = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Pass on connections for as long as this lasts."""
        server = await asyncio.start_server(self._accept, SINK, self.port)
        try:
            yield
        finally:
            server.close()
            while self._open:
                await asyncio.sleep(DELAY)
            await asyncio.sleep(2 * DELAY)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            # A connection is made in one round trip; the first byte of the greeting is half of one away.
            await asyncio.sleep(2 * DELAY)
            there, back = await asyncio.open_connection(SINK, self.sink_port)
            answers = asyncio.create_task(self._pass_on(there, writer))
            await self._pass_on(reader, back)
            self._open -= 1  # the client is done with it; what is still on its way to it nobody waits for
            await answers
        except OSError:
            self._open -= 1  # the sink leaves when it has what it wanted
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(256 * 1024):
                loop.call_later(DELAY, writer.write, data)
        except OSError:
            pass
        loop.call_later(DELAY, writer.close)
        await asyncio.sleep(DELAY)


async def main(messages: int, rounds: int) -> None:
    """Run the rounds and say what came out."""
    took: dict[str, list[float]] = {}
    connections: dict[str, int] = {}
    async with Internet(clock=SystemClock()) as internet:
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", SINK)

        async def through_smarthost(port: int, sink_port: int) -> float:
            one = f"max_connections_per_destination = 1\nmax_messages_per_connection = {messages}"
            async with serving(internet.nameserver, port, one) as relay:
                return await timed(relay.port, sink_port, messages)

        async def through_postfix(port: int, sink_port: int) -> float:
            async with postfix(port, _ONE.format(cached="no", destinations="")) as door:
                return await timed(door, sink_port, messages)

        async def through_caching_postfix(port: int, sink_port: int) -> float:
            async with postfix(port, _ONE.format(cached="yes", destinations=f"[{SINK}]:{port}")) as door:
                return await timed(door, sink_port, messages)

        ways: dict[str, Callable[[int, int], Awaitable[float]]] = {"smarthost": through_smarthost}
        if os.getuid() == 0 and program("postfix"):
            ways |= {"postfix": through_postfix, "postfix, cached": through_caching_postfix}
        for _ in range(rounds):
            for name, way in ways.items():
                far = FarAway(free_port(SINK), free_port(SINK))
                async with far.listening():
                    seconds = await way(far.port, far.sink_port)
                say(f"{name}: {seconds:.2f} s, {far.connections} connections, {far.most_at_once} at once")
                took.setdefault(name, []).append(seconds)
                connections[name] = far.connections
    for name, each_took in took.items():
        each = statistics.median(each_took) / messages
        spread = " ".join(f"{seconds:.2f}" for seconds in each_took)
        say(
            f"{name:16} {1 / each:5.2f} messages/s   {each / (2 * DELAY):.2f} round trips a message   "
            f"{connections[name]} connections   [{spread} s]"
        )


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(arguments + [100, 3][len(arguments) :])))
