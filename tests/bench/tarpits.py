"""What peers that keep us waiting cost the others: how long mail to healthy hosts takes, without them and with them

    alone       eight healthy destinations, a message every 20 ms, in turn, and as much to eight others that are healthy
    tarpits     the same, but the others are tarpits (a byte of the greeting every 10 s) and black holes (never a word),
                each with a backlog

in turn, several rounds, through `smarthost serve` with the default settings. A message's time is from the moment it is
handed in until its exchange has it. Absolute figures depend on the machine; the ratio of the p95s is what counts.

    uv run python -m tests.bench.tarpits [MESSAGES] [ROUNDS]
"""

import asyncio
import statistics
import sys
from collections.abc import Callable

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Healthy, Tarpit
from tests.bench.relaying import say
from tests.serving import serving
from tests.smtp import smtp_client

HEALTHY = 8  # domains
EVERY = 0.020  # seconds
BACKLOG = 5  # messages for each that keeps us waiting, before the clock starts

Times = list[float]


async def taken(messages: int, others: Callable[[int], Temper]) -> Times:
    """How many seconds each message to a healthy host took, while as many others were of another temper."""
    async with Internet(clock=SystemClock()) as internet:
        good = [f"good{number}.example" for number in range(HEALTHY)]
        rest = [f"other{number}.example" for number in range(HEALTHY)]
        for domain in good:
            await internet.add(domain, mx=[(10, f"mx.{domain}", Healthy())])
        for number, domain in enumerate(rest):
            await internet.add(domain, mx=[(10, f"mx.{domain}", others(number))])
        async with (
            serving(internet.nameserver, internet.port) as relay,
            smtp_client(relay.port) as smtp,
        ):
            for domain in rest * BACKLOG:
                await smtp.sendmail("ann@source.example", [f"x@{domain}"], b"Subject: 1\r\n\r\nwait\r\n")
            sent: dict[str, float] = {}
            clock = SystemClock()
            for number in range(messages):
                recipient = f"u{number}@{good[number % HEALTHY]}"
                sent[recipient] = clock.now()
                await smtp.sendmail("ann@source.example", [recipient], b"Subject: 1\r\n\r\nhello\r\n")
                other = f"y@{rest[number % HEALTHY]}"
                await smtp.sendmail("ann@source.example", [other], b"Subject: 1\r\n\r\nwait\r\n")
                await asyncio.sleep(EVERY)
            measured = [internet.exchange(f"mx.{domain}") for domain in good]
            async with asyncio.timeout(120):
                while sum(exchange.messages for exchange in measured) < messages:
                    await asyncio.sleep(0.1)
            return [one.at - sent[one.recipients[0]] for exchange in measured for one in exchange.delivered]


async def main(messages: int, rounds: int) -> None:
    """Run the rounds and say what came out."""
    worlds: dict[str, Callable[[int], Temper]] = {
        "alone": lambda _: Healthy(),
        "tarpits": lambda number: Tarpit(10.0) if number % 2 else BlackHole(),
    }
    p95s: dict[str, Times] = {}
    for _ in range(rounds):
        for name, others in worlds.items():
            times = await taken(messages, others)
            p95s.setdefault(name, []).append(statistics.quantiles(times, n=20)[-1])
    alone = statistics.median(p95s["alone"])
    for name, each in p95s.items():
        middle = statistics.median(each)
        spread = " ".join(f"{1000 * one:.1f}" for one in each)
        say(f"{name:10} p95 {1000 * middle:5.1f} ms   {middle / alone:.2f} of alone   [{spread} ms]")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(arguments + [500, 3][len(arguments) :])))
