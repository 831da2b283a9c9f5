"""The commands that look after who may submit mail."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.intake.smtp.users import Logins
from tests.scenarios.submitting import Keys


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "smarthost.toml"
    path.write_text(f'hostname = "relay.example"\n[intake.submission]\nusers = "{tmp_path}/users"\n')
    return path


def run(settings: Path, *words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["--config", str(settings), "user", *words], input=typed)


async def test_a_user_is_added_changed_listed_and_removed(settings: Path, tmp_path: Path) -> None:
    assert run(settings, "list").stdout == ""
    added = run(settings, "add", "ann", "--password-stdin", typed="secret\n").stdout
    assert added == "ann: added; may send as ann@relay.example (its name is no address; --sender names others)\n"
    assert run(settings, "add", "bob", "--password-stdin", typed="secret").exit_code == 0
    changed = run(settings, "add", "ann", "--password-stdin", typed="other\n").stdout
    assert changed == "ann: has a new password; may send as ann@relay.example\n"
    listed = "ann: may send as ann@relay.example\nbob: may send as bob@relay.example\n"
    assert run(settings, "list").stdout == listed
    assert run(settings, "list", "--json").stdout == (
        '{"name":"ann","senders":["ann@relay.example"]}\n{"name":"bob","senders":["bob@relay.example"]}\n'
    )
    assert "secret" not in (tmp_path / "users").read_text()
    logins = Logins(tmp_path / "users")
    try:
        assert await logins.right("ann", "other")
    finally:
        logins.close()
    assert run(settings, "remove", "bob").stdout == "bob: removed\n"
    assert run(settings, "list").stdout.startswith("ann: ")


def test_as_whom_a_login_may_send_is_said_changed_and_taken_back(settings: Path, tmp_path: Path) -> None:
    words = ("add", "ann@shop.example", "--sender", "*@Shop.example", "--sender", "boss@shop.example")
    added = run(settings, *words, "--password-stdin", typed="secret\n").stdout
    assert added == "ann@shop.example: added; may send as *@shop.example, boss@shop.example\n"
    again = run(settings, "add", "ann@shop.example", "--password-stdin", typed="other\n").stdout
    assert again == "ann@shop.example: has a new password; may send as *@shop.example, boss@shop.example\n"
    for given, told in (
        ((), "*@shop.example, boss@shop.example"),
        (("ann@other.example",), "ann@other.example"),
        (("*",), "anybody"),
        (("--own",), "ann@shop.example"),
    ):
        said = run(settings, "senders", "ann@shop.example", *given)
        assert (said.exit_code, said.stdout) == (0, f"ann@shop.example: may send as {told}\n")
    nobody = run(settings, "add", "DOMAIN\\ann", "--password-stdin", typed="secret\n").stdout
    assert "may send as nobody: its name makes no address" in nobody


def test_what_is_no_sender_is_refused_and_nothing_is_changed(settings: Path, tmp_path: Path) -> None:
    assert run(settings, "add", "ann", "--password-stdin", typed="secret\n").exit_code == 0
    before = (tmp_path / "users").read_bytes()
    for wrong in ("boss", "a@b@c", "*@", "<>", "", '"a b"@shop.example'):
        refused = run(settings, "senders", "ann", wrong)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "*@" in refused.stderr
    assert run(settings, "senders", "ann", "boss@shop.example", "--own").exit_code == 2
    assert "no such login" in run(settings, "senders", "bob", "--own").stderr
    assert "no such login" in run(settings, "senders", "bob").stderr
    assert (tmp_path / "users").read_bytes() == before


def test_logins_from_before_senders_were_kept_are_told_of(settings: Path, tmp_path: Path) -> None:
    assert run(settings, "add", "ann", "--password-stdin", typed="secret\n").exit_code == 0
    users = tmp_path / "users"
    users.write_text(users.read_text().replace(":\n", "\n"))
    assert run(settings, "list").stdout == "ann: may send as anybody, being from before senders were kept\n"
    again = run(settings, "add", "ann", "--password-stdin", typed="other\n").stdout
    assert again == "ann: has a new password; may send as anybody, being from before senders were kept\n"
    (tmp_path / "keys").mkdir()
    keys = Keys(tmp_path / "keys")
    settings.write_text(
        f'hostname = "relay.example"\n[intake.submission]\nusers = "{users}"\nlisten = ["127.0.0.1:0"]\n'
        f'certificate = "{keys.certificate}"\nkey = "{keys.key}"\n'
    )
    told = "intake.submission.users: 1 login from before senders were kept may send as anybody (ann); `smarthost user"
    assert told in CliRunner().invoke(app, ["--config", str(settings), "config", "check"]).stdout
    assert run(settings, "senders", "ann", "--own").stdout == "ann: may send as ann@relay.example\n"
    assert "senders were kept" not in CliRunner().invoke(app, ["--config", str(settings), "config", "check"]).stdout
    assert run(settings, "remove", "ann").exit_code == 0
    told = f"nobody is in {users} yet; `smarthost user add NAME` adds who may log in"
    assert told in CliRunner().invoke(app, ["--config", str(settings), "config", "check"]).stdout


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
    assert "line 1 is not name:argon2:senders" in run(settings, "list").stderr
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
