"""docs/design.md names rooms, files and functions that are there, and its arrows are those of the contract."""

import re
import tomllib

import pytest

from tests.unit.test_readme import ROOT, in_backticks, named

DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
NAMES = sorted(set(in_backticks(DESIGN)))
ROOMS = [row.split("`")[1] for row in DESIGN.splitlines() if row.startswith("| `engine/")]


@pytest.mark.parametrize("path", [name for name in NAMES if "/" in name and " " not in name])
def test_each_file_is_there(path: str) -> None:
    found = [ROOT / path, ROOT / "engine" / "queue" / path]  # of the queue's room some stand by their short names
    assert any(one.exists() for one in found)


@pytest.mark.parametrize("name", [name for name in NAMES if re.fullmatch(r"(engine|console)(\.\w+)+", name)])
def test_each_name_can_be_imported(name: str) -> None:
    assert named(name) is not None


def test_the_rooms_are_those_of_the_contract_in_its_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    order = [name for layer in layers for name in layer.split(" | ")]
    assert [room.removeprefix("engine/").rstrip("/").removesuffix(".py") for room in ROOMS] == order


def test_every_room_of_the_engine_is_told() -> None:
    folders = {f"engine/{path.name}/" for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()}
    assert folders == {room for room in ROOMS if room.endswith("/")}
