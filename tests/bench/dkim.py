"""What signing costs: CPU of one signature of a message of 4 KiB, and how much mail still passes with it

    ed25519, rsa, both      the signature alone: microseconds of CPU a message
    unsigned, and each      4 KiB messages from smtp-source through `smarthost serve` to smtp-sink, in turn, in rounds

Absolute figures depend on the machine; the ratios of the medians are what counts.

    uv run python -m tests.bench dkim [MESSAGES] [ROUNDS]
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from engine.base.clock import SystemClock
from engine.dkim.signer import Signer
from engine.intake.signing import signed
from engine.sandbox.internet import Internet
from engine.settings.settings import DkimKey
from tests.bench.relaying import SINK, say, timed
from tests.serving import Served, free_port, serving
from tests.unit.dkim_keys import ed25519, rsa2048, settings_of

Ways = dict[str, tuple[DkimKey, ...]]

_TIMES = 500  # signatures
_LETTER = (
    b"From: ann@source.example\r\nTo: bob@sink.example\r\nSubject: hello\r\nDate: Mon, 23 Nov 2026 02:00:00 +0000\r\n"
    b"Message-ID: <1@source.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 76 + b"\r\n"
) + (b"so it goes on and on, with words and blanks, for four kibibytes all in all.\r\n" * 50)


def alone(keys: tuple[DkimKey, ...]) -> float:
    """Microseconds of CPU that it takes to sign one message."""
    signer = Signer(keys, "refuse", SystemClock())
    signer.look()
    began = time.process_time()
    for _ in range(_TIMES):
        assert signed(_LETTER, signer).fields
    return (time.process_time() - began) / _TIMES * 1e6


async def main(messages: int, rounds: int) -> None:
    """Run the rounds and say what came out."""
    with tempfile.TemporaryDirectory(prefix="sh-") as name:
        folder = Path(name)
        rsa, short = rsa2048(folder, "source.example"), ed25519(folder, "source.example")
        ways: Ways = {"unsigned": (), "ed25519": (short,), "rsa": (rsa,), "both": (rsa, short)}
        for way, keys in ways.items():
            if keys:
                say(f"{way:10} {alone(keys):7.0f} us of CPU a message of {len(_LETTER):,} octets")
        if messages:
            await _through(ways, messages, rounds)


async def _through(ways: Ways, messages: int, rounds: int) -> None:
    sink_port = free_port(SINK)
    took: dict[str, list[float]] = {}
    cost: dict[str, list[float]] = {}  # CPU of the relay, which does not count what else the machine does
    async with Internet(clock=SystemClock()) as internet:
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", SINK)
        for _ in range(rounds):
            for name, keys in ways.items():
                async with serving(internet.nameserver, sink_port, settings_of(*keys)) as relay:
                    took.setdefault(name, []).append(await timed(relay.port, sink_port, messages))
                    cost.setdefault(name, []).append(_cpu(relay))
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in took.items():
        spread = " ".join(f"{each:.2f}" for each in seconds)
        share = medians["unsigned"] / medians[name]
        cpu = statistics.median(cost[name]) / messages * 1e6
        say(f"{name:10} {messages / medians[name]:7.0f} messages/s   {share:.2f} of unsigned   [{spread} s]")
        say(f"{'':10} {cpu:7.0f} us of the relay's CPU a message, its start among it")


def _cpu(relay: Served) -> float:
    """Seconds of CPU that a relay has had (proc(5))."""
    assert relay.process is not None
    words = Path(f"/proc/{relay.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(arguments + [2000, 3][len(arguments) :])))
