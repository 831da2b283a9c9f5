"""A short run of every fuzzer; an hour of each is a command (see the package)."""

import pytest

from tests.fuzz.catalogue import FUZZERS
from tests.fuzz.fuzzing import Fuzzer, fuzz


@pytest.mark.parametrize("name", FUZZERS)
def test_nothing_that_a_stranger_sends_breaks_us(name: str) -> None:
    make = FUZZERS[name]
    assert isinstance(make, type)
    assert issubclass(make, Fuzzer)
    report = fuzz(make, seed=1, most=make.SHORT)
    assert report.cases >= make.SHORT
    assert report.went_well
    assert not report.found, "\n".join(map(str, report.found))
