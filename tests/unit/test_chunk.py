"""A message that goes out in one chunk is, on the wire, its length and itself; without its end it is never whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.smtpclient.chunk import Chunk, WrongLength


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_however_it_is_cut_it_is_what_it_was(blocks: list[bytes]) -> None:
    content = b"".join(blocks)
    chunk = Chunk(len(content))
    before = b"".join(map(chunk, blocks))
    wire = b"BDAT %d LAST\r\n%b" % (len(content), content)
    assert before + chunk.end == wire
    assert len(chunk.end) == 1 or not content


@given(st.lists(st.binary(max_size=5), max_size=5), st.integers(1, 9))
def test_one_that_is_shorter_or_longer_than_was_said_has_no_end(blocks: list[bytes], other: int) -> None:
    size = sum(map(len, blocks))
    short = Chunk(size + other)
    for block in blocks:
        short(block)
    with pytest.raises(WrongLength):
        assert short.end
    long = Chunk(max(0, size - other))
    if size:
        with pytest.raises(WrongLength):
            long(b"".join(blocks))
