"""docs/settings.md is made from the structure itself."""

import re
import tomllib
from pathlib import Path

import msgspec

from engine.settings import values
from engine.settings.file import READERS
from engine.settings.reference import reference

WRITTEN = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_structure_says() -> None:
    anew = "write it anew: uv run smarthost config reference > docs/settings.md"
    assert WRITTEN.read_text(encoding="utf-8") == reference().rstrip() + "\n", anew


def test_every_key_is_there_with_what_it_may_be() -> None:
    page = reference()
    for table, readers in READERS.items():
        for key, reader in readers.items():
            assert reader.__doc__, (table, key)
            assert f"| `{key}` |" in page
    assert len(READERS) == page.count("| key | default |") + sum(not readers for readers in READERS.values())


def test_no_page_names_a_folder_of_the_machine_it_was_made_on() -> None:
    assert str(Path.home()) not in reference()


def read(reader: values.Reader, written: str) -> object:
    """What a reader makes of a value as it stands in a file; None where that is none of its values."""
    try:
        found = reader(tomllib.loads(f"x = {written}")["x"])
    except ValueError:
        return None
    return "" if found is None else found


def test_every_default_that_is_told_is_read_as_what_it_is() -> None:
    told: dict[str, list[str]] = {}
    for key, written in re.findall(r"(?m)^\| `(\w+)` \| `(.*?)` \| ", reference()):
        told.setdefault(key, []).append(written)
    for table, readers in READERS.items():
        for field in msgspec.structs.fields(table):
            if field.name in readers and field.default not in (msgspec.NODEFAULT, None):
                assert field.default in [read(readers[field.name], each) for each in told[field.name]], (table, field)
