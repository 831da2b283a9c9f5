"""docs/limits.md names every bound, each by a name that the code has, with the default that it has there."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import Struct
from msgspec.structs import fields

from engine.settings.settings import Limit, Settings

ROOT = Path(__file__).parents[2]
SCALES = {"KiB": 2**10, "MiB": 2**20, "ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}

# Numbers with a name that bound nothing: what things are called, where they are, how they look.
NO_BOUNDS = {
    "engine.smtpclient.blame._DISCARD",
    "engine.doctor.machine._MIB",
    "engine.doctor.machine._TIMEX",
    "engine.doctor.machine._TIME_ERROR",
    "engine.intake.smtp.listener._FIRST_FREE_PORT",
    "engine.intake.smtp.proxy._FIXED",
    "engine.intake.smtp.proxy._LAST_PORT",
    "engine.intake.smtp.proxy._LOCAL",
    "engine.intake.smtp.proxy._PROXY",
    "engine.intake.drop.watch._CAME",
    "engine.intake.drop.watch._ENDED",
    "engine.intake.drop.watch._LOST",
    "engine.dkim.making.RSA_BITS",
    "engine.dkim.records.STRING",
    "engine.dns.nameserver._COUNTS_AT",
    "engine.dns.nameserver._TRUNCATED",
    "engine.dns.nameserver._TRUNCATED_AT",
    "engine.queue.moving._NO_NUMBER",
    "engine.queue.postgres.connection.MAKING",
    "engine.queue.postgres.connection.MOVING",
    "engine.queue.postgres.connection.NODE",
    "engine.queue.postgres.connection.OVERDUE",
    "engine.queue.postgres.connection.RULING",
    "engine.queue.postgres.connection.TAKING",
    "engine.queue.postgres.migrations.OLDEST",
    "engine.queue.postgres.migrations.VERSION",
    "engine.queue.postgres.node.LEASED",
    "engine.queue.rows.BEARING_WIDTH",
    "engine.queue.sqlite.migrations.VERSION",
    "engine.queue.sqlite.moving._ALL_EVENTS",
    "engine.queue.sqlite.upkeep._FRAME",
    "engine.tls.contexts._LEGACY_SERVER_CONNECT",
    "engine.tls.dane.END_ENTITY",
    "engine.tls.dane.TRUST_ANCHOR",
    "engine.tls.dane._FULL",
    "engine.tls.dane._SHA256",
    "engine.tls.dane._SHA512",
    "engine.settings.file.IMPLICIT_TLS",
    "engine.tls.policy_files.HTTPS",
    "engine.maillog.lines._RESOLUTION",
    "engine.maillog.sinks._MAIL_INFO",
    "engine.maillog.sinks._INFO",
    "engine.smtpclient.dialler._BIND_ADDRESS_NO_PORT",
    "engine.smtpclient.initiation._LONGEST_COMMAND",
    "console.commands.doctor._LEAST",
    "console.commands.listings.WIDE",
    "console.format.STEP",
    "console.format.TICKS_WITHIN",
    "console.frame._MOVE",
    "console.screens.answers.WIDTH",
    "console.screens.details.WIDTH",
    "console.screens.front.SHORT",
    "console.screens.front.TALL",
    "console.verbs.DEFAULT_TIME",
    "console.widgets.columns.GAP",
    "console.widgets.columns.LOW",
    "console.widgets.columns.NAME",
    "console.widgets.columns.REASON",
}
SETTINGS_THAT_BOUND_NOTHING = {"delivery.port"}


class Row(NamedTuple):
    """One line of a table."""

    name: str
    default: str
    unit: str
    at_it: str
    seen: str

    @property
    def value(self) -> object:
        """The default as the code has it."""
        if self.default == "none":
            return None
        scale = SCALES.get(self.unit.split(" ")[0].rstrip(","), 1)
        plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", self.default)
        found = tuple(float(part) * scale for part in plain.split(","))
        return found if len(found) > 1 else found[0]


def rows() -> list[Row]:
    lines = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(len(each) == 5 for each in cells), [each for each in cells if len(each) != 5]
    return [Row(name.strip("`"), *rest) for name, *rest in cells]


ROWS = rows()


@pytest.fixture(autouse=True)
def _no_answer_is_costly() -> None:
    """Not set aside here as in all other tests: the defaults are what is looked at."""


def in_code(name: str) -> Any:
    """What a name stands for: the default of a setting, of an argument, or a constant."""
    if (
        not name.startswith(("engine.", "console."))
        or name.removeprefix("console.") in Settings().console.__struct_fields__
    ):
        return setting(name)
    path, _, argument = name.removesuffix(")").partition("(")
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return inspect.signature(found).parameters[argument].default if argument else found
    raise AssertionError(f"no module for {name}")


def setting(name: str) -> Any:
    """The default of a setting by its dotted name."""
    found: Any = Settings(hostname="relay.example.net")
    for part in name.split("."):
        found = (
            Limit(destination="example.org")
            if part == "limit" and isinstance(found, Settings)
            else getattr(found, part)
        )
    return found


def test_every_bound_has_the_default_that_is_written() -> None:
    wrong = {row.name: (row.default, found) for row in ROWS if not is_written(row, found := in_code(row.name))}
    assert not wrong
    assert [row.name for row in ROWS if not row.unit or not row.at_it] == []


def is_written(row: Row, found: object) -> bool:
    return found is None if row.value is None else bool(found == pytest.approx(row.value))


def test_a_row_that_is_not_true_is_found() -> None:
    wrong = Row("engine.intake.smtp.session.IDLE", "301", "s without a command", "421 4.4.2", "the client")
    assert not is_written(wrong, in_code(wrong.name))
    assert is_written(wrong._replace(default="5", unit="min"), in_code(wrong.name))


def test_no_bound_stands_twice() -> None:
    names = [row.name for row in ROWS]
    assert sorted(names) == sorted(set(names))


def test_every_setting_that_is_a_number_is_there() -> None:
    missing = set(numbers_of(Settings(hostname="relay.example.net"))) - {row.name for row in ROWS}
    assert missing == SETTINGS_THAT_BOUND_NOTHING
    assert {f"limit.{one.name}" for one in fields(Limit) if one.default is None} <= {row.name for row in ROWS}


def numbers_of(settings: Struct, at: str = "") -> Iterator[str]:
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, Struct):
            yield from numbers_of(value, f"{at}{one.name}.")
        elif is_number(value) or (isinstance(value, tuple) and value and all(map(is_number, value))):
            yield f"{at}{one.name}"


def test_every_number_with_a_name_is_there() -> None:
    found = set(constants())
    assert found - {row.name for row in ROWS} - NO_BOUNDS == set(), "add a row, or say that it is no bound"
    assert NO_BOUNDS - found == set(), "these are no more"


def constants() -> Iterator[str]:
    """Names in capitals that modules of the engine and the console give to numbers."""
    for path in sorted((*(ROOT / "engine").rglob("*.py"), *(ROOT / "console").rglob("*.py"))):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module.startswith("engine.sandbox"):
            continue
        for name in assigned(ast.parse(path.read_text(encoding="utf-8"))):
            if name.strip("_").isupper() and is_number(getattr(import_module(module), name)):
                yield f"{module}.{name}"


def assigned(module: ast.Module) -> Iterator[str]:
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else (target,):
                if isinstance(each, ast.Name):
                    yield each.id


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
