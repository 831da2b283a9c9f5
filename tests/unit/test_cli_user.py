"""The commands that look after who may submit mail."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.intake.smtp.users import Logins


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "smarthost.toml"
    path.write_text(f'[intake.submission]\nusers = "{tmp_path}/users"\n')
    return path


def run(settings: Path, *words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["--config", str(settings), "user", *words], input=typed)


async def test_a_user_is_added_changed_listed_and_removed(settings: Path, tmp_path: Path) -> None:
    assert run(settings, "list").stdout == ""
    assert run(settings, "add", "ann", "--password-stdin", typed="secret\n").stdout == "ann: added\n"
    assert run(settings, "add", "bob", "--password-stdin", typed="secret").exit_code == 0
    assert run(settings, "add", "ann", "--password-stdin", typed="other\n").stdout == "ann: has a new password\n"
    assert run(settings, "list").stdout == "ann\nbob\n"
    assert run(settings, "list", "--json").stdout == '{"name":"ann"}\n{"name":"bob"}\n'
    assert "secret" not in (tmp_path / "users").read_text()
    logins = Logins(tmp_path / "users")
    try:
        assert await logins.right("ann", "other")
    finally:
        logins.close()
    assert run(settings, "remove", "bob").stdout == "bob: removed\n"
    assert run(settings, "list").stdout == "ann\n"


def test_each_guess_at_a_password_is_dear(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the tests' cheap one
    assert run(settings, "add", "ann", "--password-stdin", typed="secret\n").exit_code == 0
    assert "ann:$argon2id$v=19$m=19456,t=2,p=1$" in (tmp_path / "users").read_text()


def test_what_cannot_be_done_is_said(settings: Path, tmp_path: Path) -> None:
    assert run(settings, "remove", "ann").exit_code == 1
    assert "no name for a login" in run(settings, "add", "a:b", "--password-stdin", typed="x\n").stderr
    assert run(settings, "add", "ann", "--password-stdin", typed="").exit_code == 1
    assert "there is no terminal" in run(settings, "add", "ann").stderr
    (tmp_path / "users").write_text("ann=secret\n")
    assert "line 1 is not name:argon2" in run(settings, "list").stderr
    settings.write_text("")
    assert "intake.submission.users: not set" in run(settings, "list").stderr


def test_config_check_looks_at_the_certificate(settings: Path, tmp_path: Path) -> None:
    settings.write_text(
        '[intake.submission]\nlisten = ["127.0.0.1:0"]\ncertificate = "/nowhere.pem"\nkey = "/nowhere.key"\n'
        f'users = "{tmp_path}/users"\n'
    )
    result = CliRunner().invoke(app, ["--config", str(settings), "config", "check"])
    assert result.exit_code == 1
    assert "intake.submission.certificate: /nowhere.pem cannot be read: No such file or directory" in result.stderr
