"""Random keys in bursts at the console of a busy relay: no verb acts on what was not meant, and nothing gets stuck."""

import random

import pytest

from tests.interop.keyfuzz import fuzz

KEYS = 500


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40)])
async def test_of_random_keys_each_is_done_for_what_was_pointed_at(columns: int, lines: int) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    judge = await fuzz(KEYS, seed, columns, lines)
    assert not judge.wrong, f"seed {seed}: {judge.wrong[0]}"
    assert judge.done >= KEYS
    assert judge.counts["asked"] > 5, "it did something"
