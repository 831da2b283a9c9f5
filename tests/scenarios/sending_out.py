"""A process that sends out what a spool holds, and tells what memory that took at its peak: see test_24.

    python -m tests.scenarios.sending_out NAMESERVER PORT SPOOL

prints the peak in MiB, and how many connections there were at a time.
"""

import asyncio
import sys
from pathlib import Path

from engine.engine import Engine
from engine.settings.settings import Delivery, Dns, Intake, Nameserver, Settings, Smtp


async def main(nameserver: str, port: int, spool: Path) -> None:
    host, _, number = nameserver.rpartition(":")
    engine = Engine(
        Settings(
            hostname="relay.example.net",
            spool=spool,
            intake=Intake(min_free=0, smtp=Smtp(listen=())),
            dns=Dns(nameservers=(Nameserver(host, int(number)),)),
            delivery=Delivery(
                port=port,
                max_connections=50,  # half is for hosts that have not proved themselves, and of that 3/4 for one sender
                max_connections_per_destination=20,
                initial_connections=20,
                loopback_exchanges=True,
            ),
        )
    )
    await engine.start()
    most = 0
    while (totals := await engine.queue.listing.totals()).waiting or totals.relaying:
        most = max(most, len(engine.smarthost.managed))
        await asyncio.sleep(0.05)
    status = Path("/proc/self/status").read_text().split()
    print(int(status[status.index("VmHWM:") + 1]) // 1024, most)
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
