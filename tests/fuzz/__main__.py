"""The one way in to the fuzzers; see `tests/fuzz/__init__.py`."""

import argparse
import random
import sys
import time

from tests import fuzz
from tests.fuzz.catalogue import FUZZERS
from tests.fuzz.fuzzing import fuzz as run


def main() -> int:
    """Run the one that is named; 1 if it found something."""
    listed = "\n".join(f"    {name:10}{(made.__doc__ or '').partition(chr(10))[0]}" for name, made in FUZZERS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=f"{fuzz.__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=FUZZERS)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    given = parser.parse_args()
    print(f"{given.name}: {given.minutes:g} minutes, seed {given.seed}", flush=True)
    begin = time.monotonic()
    report = run(FUZZERS[given.name], seed=given.seed, seconds=given.minutes * 60)
    for one in report.found:
        print(one)
    took = time.monotonic() - begin
    well = f"{report.went_well:,} of them went well"
    print(f"{report.cases:,} cases in {took:.0f} s, {well}, {len(report.found)} found")
    return 1 if report.found or not report.went_well else 0


if __name__ == "__main__":
    sys.exit(main())
