"""What README names is there: files, functions, settings and the tests that hold its tables."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from console.actions import ACTIONS, Action
from engine.base.clock import SystemClock
from engine.delivery.relayer import ManagedRelayer
from engine.engine import Engine
from engine.model.claim import Claim, ClaimedEntry
from engine.model.verbs import VERBS, Verb
from engine.settings.settings import Settings
from tests.sites import sites_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_FOLDERS = ("engine/", "console/", "tests/", "screenshots/", "docs/")
_DOTTED = re.compile(r"(engine|console)(\.\w+)+")
_SETTING = re.compile(r"\[([\w.]+)\] (\w+)")
_NAME = re.compile(r"[a-z]\w*")


CLAIM = Claim(
    message=1, sender="", size=1, arrived=0, eight_bit=False, smtputf8=False, destination="a.example",
    entries=(ClaimedEntry(number=1, recipient="b@a.example", attempt=1, attempts=0, expires=1),),
)  # fmt: skip


def section(title: str) -> str:
    """What stands below a heading, up to the next of its kind."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    return str(found)


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


WAY = in_backticks(section("The way of one message"))
HERE = [row.split("|")[2] for row in section("For people who come from twisted.mail.relaymanager").splitlines()
        if row.startswith("| `")]  # fmt: skip


def named(dotted: str) -> Any:
    """The module, class, function or method of this name."""
    words = dotted.split(".")
    for length in range(len(words), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            found = getattr(found, word)
        return found
    raise ModuleNotFoundError(dotted)


def is_a_setting(table: str, key: str) -> bool:
    kind: Any = Settings
    for name in [*table.split("."), key]:
        fields = {one.name: one.type for one in msgspec.structs.fields(kind)}
        if name not in fields:
            return False
        kind = fields[name]
    return True


def every_setting(kind: Any) -> set[str]:
    """Every key there is, in whatever table."""
    fields = {one.name: one.type for one in msgspec.structs.fields(kind)}
    tables = [each for each in fields.values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return set(fields).union(*map(every_setting, tables))


@pytest.mark.parametrize("path", sorted({one for one in in_backticks(README) if one.startswith(_FOLDERS)}))
def test_each_file_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_what_contributors_are_told_is_there() -> None:
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [one for one in in_backticks(told) if one.startswith(_FOLDERS) and not (ROOT / one).exists()] == []
    for module in re.findall(r"python -m ([\w.]+)", told):
        assert importlib.util.find_spec(module), module


def test_the_pictures_are_there() -> None:
    pictures = re.findall(r"\]\((screenshots/[^)]+)\)", README)
    assert pictures
    assert [path for path in pictures if not (ROOT / path).is_file()] == []


def test_the_tests_that_hold_the_table_of_standards_are_there() -> None:
    tests = re.findall(r"`(test_\w+(?:\.py)?)`", section("What the standards say, and what we do"))
    assert tests
    assert [
        name for name in tests if not list((ROOT / "tests/scenarios").glob(f"{name.removesuffix('.py')}*.py"))
    ] == []


def test_the_files_in_the_list_of_where_things_are_are_there() -> None:
    listed = README.partition("## Where things are")[2].partition("```")[2].partition("```")[0]
    rooms = {path.name for path in (ROOT / "engine").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(re.findall(r"(?m)^  (\w+)/", listed)) == rooms
    files = re.findall(r"\b\w+\.py\b", listed)
    assert [name for name in files if not list((ROOT / "engine").rglob(name))] == []
    files_there = {path.name for path in (ROOT / "engine").glob("*.py")}
    assert files_there == {"__init__.py", "engine.py", "running.py", "moving.py"}


def test_the_way_of_one_message_names_what_is_there() -> None:
    functions = [one for one in WAY if _DOTTED.fullmatch(one)]
    files = [one for one in WAY if one.startswith(_FOLDERS)]
    settings = [one for one in WAY if _SETTING.fullmatch(one)]
    assert (len(functions) >= 10, len(files) >= 10) == (True, True)
    for one in set(WAY) - {*functions, *files, *settings}:
        # What is none of these is a reply, a command, or a setting without its table.
        assert one.isdigit() or one.startswith("smarthost ") or one in every_setting(Settings), one
    assert all(callable(named(one)) for one in functions)
    assert all((ROOT / path).exists() for path in files)
    assert all(is_a_setting(*one.removeprefix("[").split("] ")) for one in settings)


@pytest.mark.parametrize("row", HERE)
def test_what_people_from_twisted_mail_find_is_there(row: str, tmp_path: Path) -> None:
    engine = Engine(Settings(hostname="relay.example.net", spool=tmp_path / "spool"))
    site = sites_of(SystemClock()).get("a site")
    relayer = ManagedRelayer(1, site, [CLAIM], engine.smarthost._parts, engine.smarthost)
    parts = [*vars(engine).values(), relayer]
    subject: Any = None
    names = 0
    for one in in_backticks(row):
        if setting := _SETTING.fullmatch(one):
            assert is_a_setting(*setting.groups()), one
        elif _DOTTED.fullmatch(one):
            subject = named(one)
        else:
            assert _NAME.fullmatch(one), f"{one} is neither name, module nor setting"
            assert subject is not None, f"{one}: of what?"
            living = next((part for part in parts if isinstance(part, subject)), subject)
            assert hasattr(living, one), f"{subject.__name__} has no {one}"
        names += 1
    assert names


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.word)
def test_every_verb_has_its_line(verb: Verb) -> None:
    lines = [row.split("|")[1] for row in section("Commands").splitlines() if row.startswith("| `")]
    assert any(re.search(rf"(?<![\w-]){verb.word}(?![\w-])", line) for line in lines)


@pytest.mark.parametrize("action", [one for one in ACTIONS if one.verb and one.keys], ids=lambda action: action.name)
def test_the_key_of_every_verb_stands_beside_its_name(action: Action) -> None:
    rows = [row for row in section("The screens").splitlines() if row.startswith("| `")]
    assert any(action.keys[0] in in_backticks(row) for row in rows if action.label in row)
