"""The front of the command line: options, settings, exit status, and what is imported for what."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console import cli, faults
from console.cli import app
from engine.running import EngineFailed
from engine.settings.settings import Settings
from tests.logs import logging_as_before
from tests.unit.fake_line import serving_line
from tests.unit.fake_relay import short_folder


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder in which nothing is, and no settings of anybody's anywhere."""
    monkeypatch.delenv("SMARTHOST_CONFIG", raising=False)
    with short_folder() as name:
        monkeypatch.setenv("XDG_CONFIG_HOME", name)
        monkeypatch.setenv("XDG_STATE_HOME", name)
        yield Path(name)


def test_without_an_engine_it_says_how_to_start_one_and_leaves_three(folder: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--spool", str(folder)])
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        f"no engine answers on {folder}/control.sock: No such file or directory",
        "start one with `smarthost serve`, or with `smarthost` to see it at work",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--spool", "SPOOL"],
        ["--spool", "SPOOL", "status"],
        ["status", "--spool=SPOOL"],
        ["status", "--config", "SETTINGS"],
        ["--config=SETTINGS", "status"],
    ],
)
def test_options_for_all_commands_may_stand_anywhere(words: list[str]) -> None:
    with serving_line() as line:
        settings = line.spool / "settings.toml"
        settings.write_text(f'spool = "{line.spool}"\n')
        given = [word.replace("SPOOL", str(line.spool)).replace("SETTINGS", str(settings)) for word in words]
        result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output


def test_the_settings_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_line() as line:
        settings = line.spool / "settings.toml"
        settings.write_text(f'spool = "{line.spool}"\n')
        monkeypatch.setenv("SMARTHOST_CONFIG", str(settings))
        assert CliRunner().invoke(app, ["status"]).exit_code == 0


def test_wrong_settings_are_told_each_on_a_line(folder: Path) -> None:
    settings = folder / "wrong.toml"
    settings.write_text('hostnam = "x"\n[delivery]\nport = 99999\n')
    for words, status in ((["status"], 2), (["serve"], 2), (["config", "check"], 1)):
        result = CliRunner().invoke(app, ["--config", str(settings), *words])
        assert result.exit_code == status
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 2
        assert all(line.startswith(f"{settings}: ") for line in lines)
        assert any("hostnam" in line for line in lines)
        assert any("delivery.port" in line for line in lines)


def test_right_settings_are_told_to_be(folder: Path) -> None:
    settings = folder / "right.toml"
    right = 'hostname = "relay.example.net"\n[dsn]\npostmaster = "postmaster@example.net"\n'
    settings.write_text(right)
    result = CliRunner().invoke(app, ["config", "check", "--config", str(settings)])
    assert (result.exit_code, result.stdout) == (0, f"{settings}: ok\n")
    settings.write_text(f"{right}[tls]\ndane = true\n")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(settings)])
    note = "DANE is off: dns.validating is false, so no answer of the DNS counts as secure"
    assert (result.exit_code, result.stdout) == (0, f"{settings}: ok\n{note}\n")


def test_settings_that_are_named_but_not_there_are_wrong(folder: Path) -> None:
    result = CliRunner().invoke(app, ["config", "check", "--config", str(folder / "none.toml")])
    assert result.exit_code == 1
    assert "no such file" in result.stderr


@pytest.mark.parametrize(
    "words", [["flush"], ["queue", "--colour"], ["show"], ["mark-bad"], ["events", "--limit", "0"]]
)
def test_wrong_usage_leaves_two(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == "smarthost 0.1.0\n"


def _commands() -> list[list[str]]:
    names = [
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    ]
    return [[], ["config"], ["config", "check"], *([name.replace("_", "-")] for name in names)]


def test_every_verb_of_the_operator_is_a_command() -> None:
    assert {" ".join(words) for words in _commands()} >= {
        *("demo", "serve", "attach", "status", "queue", "show", "relayers", "hosts", "destinations", "events", "check"),
        *("retry", "hold", "release", "bounce", "drop", "suspend", "resume", "mark-bad", "mark-good", "config check"),
    }


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_has_help_that_fits_80_columns(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "..." not in result.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("words", [[], ["demo"], ["attach"]])
def test_the_console_needs_a_terminal(folder: Path, words: list[str]) -> None:
    result = CliRunner().invoke(app, ["--spool", str(folder), *words])
    assert result.exit_code == 2
    assert "needs a terminal" in result.stderr


def test_attaching_needs_an_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_need_terminal", lambda: None)
    assert CliRunner().invoke(app, ["attach", "--spool", str(folder)]).exit_code == 3


def test_without_a_command_it_is_the_console_of_the_engine_that_runs_whatever_its_settings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(cli, "_need_terminal", lambda: None)
    monkeypatch.setattr(cli, "_draw", drawn.append)
    with serving_line() as line:
        settings = line.spool / "settings.toml"
        settings.write_text(f'spool = "{line.spool}"\n[tls]\nca_file = "{line.spool}/only-the-engine-reads-this"\n')
        result = CliRunner().invoke(app, ["--config", str(settings)])
    assert (result.exit_code, drawn) == (0, [line.spool / "control.sock"])
    assert result.stderr == "an engine runs already: this is its console\n"


def test_what_breaks_is_written_down_beside_the_spool_or_in_the_users_state_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        def start(self) -> None: ...

        def stop(self) -> bool:
            return True

    said: list[str] = []

    def run(*_: object, **__: object) -> int:
        said.append(faults.note(ValueError("odd")))
        return 0

    monkeypatch.setattr("console.terminal.run", run)
    with logging_as_before():
        cli._draw(folder / "control.sock")
        cli._console_with_engine(Engine(), Settings(spool=folder / "spool"))  # type: ignore[arg-type]
    files = [folder / "smarthost" / "console.log", folder / "spool" / "engine.log"]
    assert said == [f"; see {path}" for path in files]
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_an_engine_that_does_not_stop_in_time_does_not_hold_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Engine:
        def start(self) -> None: ...

        def stop(self) -> bool:
            return False

    ended: list[int] = []
    monkeypatch.setattr(cli, "_draw", lambda *_, **__: None)
    monkeypatch.setattr("os._exit", ended.append)
    with logging_as_before():
        cli._console_with_engine(Engine(), Settings(spool=folder / "spool"))  # type: ignore[arg-type]
    assert ended == [1]
    assert (
        "the engine does not stop in time: the process ends without it, and no mail is lost" in capsys.readouterr().err
    )


def test_an_engine_that_has_failed_is_told_of_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(_: Settings) -> None:
        raise EngineFailed("nobody listens on 127.0.0.1:25 any more")

    monkeypatch.setattr("engine.running.run_daemon", failed)
    with logging_as_before():
        result = CliRunner().invoke(app, ["--spool", str(folder / "spool"), "serve"])
    assert result.exit_code == 1
    assert result.stderr == "the engine has ended: nobody listens on 127.0.0.1:25 any more\n"


def test_read_only_is_the_console_of_the_door_for_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(cli, "_need_terminal", lambda: None)
    monkeypatch.setattr(cli, "_draw", drawn.append)
    with serving_line() as line:
        assert CliRunner().invoke(app, ["--spool", str(line.spool), "attach", "--read-only"]).exit_code == 0
    assert drawn == [line.spool / "control-view.sock"]


def test_a_command_loads_neither_screens_nor_engine() -> None:
    with serving_line() as line:
        script = (
            "import sys\nfrom console.cli import main\n"
            f"sys.argv = ['smarthost', '--spool', {str(line.spool)!r}, 'status']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "print([name for name in ('textual', 'engine.engine', 'dns', 'argon2', 'uvloop') if name in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_words_behind_two_dashes_are_left_alone() -> None:
    assert cli._options_first(["queue", "--config", "a", "--", "--spool", "b"]) == [
        "--config",
        "a",
        "queue",
        "--",
        "--spool",
        "b",
    ]
