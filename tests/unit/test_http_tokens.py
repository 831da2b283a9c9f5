"""The file of those who may post over HTTP: what it says, and what is wrong with it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.cli import app
from engine.intake.errors import IntakeError
from engine.intake.http.tokens import MAX_FILE, MOST, Tokens

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


def read(file: Path, text: str) -> Tokens:
    file.write_text(text)
    tokens = Tokens(file, "relay.example.net")
    tokens.look()
    return tokens


def test_each_line_is_a_login_its_token_and_its_senders(file: Path) -> None:
    tokens = read(file, f"# these\n\nshop {SECRET}1 *@shop.example boss@else.example\n  ann\t{SECRET}2\n")
    shop, ann = tokens.find(f"{SECRET}1"), tokens.find(f"{SECRET}2")
    assert shop is not None
    assert ann is not None
    assert (shop.login, shop.senders) == ("shop", ("*@shop.example", "boss@else.example"))
    assert (ann.login, ann.senders) == ("ann", ("ann@relay.example.net",))
    assert [tokens.find(wrong) for wrong in ("", SECRET, f"{SECRET}12", "\udc80", "shop")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("shop\n", "line 1 is not LOGIN TOKEN"),
        ("\nshop short\n", "line 2: this is no token; allowed are 32 to 512 characters"),
        (f"shop {SECRET[:-1]}ä\n", "this is no token"),
        (f"shop {SECRET} nobody@\n", "line 1: "),
        (f"shop {SECRET}\nshop {SECRET}2\n", "line 2: shop stands there twice"),
        ("".join(f"l{number} {SECRET}{number}\n" for number in range(MOST + 1)), f"at most {MOST} are allowed"),
        ("#" * (MAX_FILE + 1), f"more than {MAX_FILE} bytes"),
    ],
)
def test_what_is_wrong_is_said_and_then_nobody_has_a_token(file: Path, text: str, why: str) -> None:
    tokens = read(file, f"shop {SECRET}\n")
    file.write_text(text)
    with pytest.raises(IntakeError, match=r"intake\.http\.tokens: ") as refused:
        tokens.look()
    assert why in str(refused.value)
    assert SECRET not in str(refused.value)
    assert tokens.find(SECRET) is None
    assert tokens.trouble.startswith("intake.http.tokens: nobody can post: ")
    file.write_text(f"shop {SECRET}\n")
    tokens.look()
    assert tokens.trouble == ""
    assert tokens.find(SECRET) is not None


def test_a_file_that_others_may_read_is_none(file: Path) -> None:
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(IntakeError, match="may be read by others; chmod 0600 it"):
            read(file, f"shop {SECRET}\n")
    file.unlink()
    with pytest.raises(IntakeError, match="cannot be read"):
        Tokens(file, "relay.example.net").look()


def test_config_check_looks_at_it_and_at_the_certificate(file: Path, tmp_path: Path) -> None:
    settings = tmp_path / "smarthost.toml"
    settings.write_text(
        f'[intake.http]\nlisten = ["192.0.2.5:8443"]\ntokens = "{file}"\ncertificate = "/nowhere.pem"\n'
        'key = "/nowhere.key"\n'
    )
    file.write_text("shop short")
    said = CliRunner().invoke(app, ["--config", str(settings), "config", "check"])
    assert said.exit_code == 1
    assert "intake.http.certificate: /nowhere.pem cannot be read" in said.stderr
    assert f"intake.http.tokens: {file} line 1: this is no token" in said.stderr
