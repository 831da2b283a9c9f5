"""A damaged queue is moved: what can be read goes, and after a repair the rest; nothing is lost that was not before."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.queue.sqlite.store import FILE
from tests.unit.sqlite.pages import damage
from tests.unit.test_check_spool import PAGES, filled, found


async def run(*words: str | Path) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


@pytest.mark.parametrize(("tree", "which"), PAGES)
async def test_what_can_be_read_goes_and_the_rest_after_a_repair(tmp_path: Path, tree: str, which: float) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    known = await filled(here)
    contents = {key[0]: content for key, (_, _, _, content) in (await found(here)).items()}
    damage(here, tree, which=which)
    result = await run("move-queue", here, there)
    if result.exit_code:
        assert "check-spool --repair" in result.stderr
        repaired = await run("check-spool", here, "--repair")
        assert repaired.exit_code == 0, repaired.stderr
        assert "no event names it" not in repaired.stdout
        assert "neither its sender" not in repaired.stdout, "what has gone is not lost"
        result = await run("move-queue", here, there)
        if result.exit_code:
            assert result.stderr.splitlines()[-1].startswith("repair that and run `smarthost move-queue ")
            assert (await run("move-queue", here, there, "--abandon")).exit_code == 0
    left = await found(here) if (here / FILE).exists() else {}
    gone = await found(there)
    assert {key: row[0] for key, row in (left | gone).items()} == known
    assert not left.keys() & gone.keys()
    assert {content for _, _, _, content in left.values()} <= {b""}, "only what has no content is left"
    assert all(content == contents[key[0]] for key, (_, _, _, content) in gone.items())
    assert len(gone) > 300
    assert (await run("check-spool", there)).exit_code == 0
