"""The commands that look after the keys which sign mail."""

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.dkim.keys import read_key
from engine.settings.file import load
from tests.unit.dkim_keys import ed25519, settings_of


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "smarthost.toml"
    path.write_text('hostname = "relay.example.net"\n')
    return path


def run(settings: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--config", str(settings), *words])


def test_keys_are_made_beside_the_settings_for_their_owner_alone(settings: Path) -> None:
    made = run(settings, "dkim", "add", "Shop.example")
    assert made.exit_code == 0, made.output
    folder = settings.parent / "dkim"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(folder.iterdir())
    assert len(files) == 2
    assert all(re.fullmatch(r"shop\.example\.\d{8}-(rsa|ed25519)\.pem", path.name) for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert len(re.findall(r"(?m)^\d{8}-(?:rsa|ed25519)\._domainkey\.shop\.example\. IN TXT ", made.stdout)) == 2
    assert max(map(len, re.findall(r'"(v=[^"]*|[A-Za-z0-9+/=]{60,})"', made.stdout))) <= 255
    assert "PRIVATE" not in made.output


def test_what_it_prints_are_the_settings_with_which_the_keys_sign(settings: Path) -> None:
    made = run(settings, "dkim", "add", "shop.example", "--selector", "mail")
    blocks = made.stdout[made.stdout.index("[[dkim]]") : made.stdout.index("3. ")]
    settings.write_text(blocks)
    keys = [read_key(one) for one in load(settings).dkim]
    assert [(key.domain, key.selector, key.algorithm) for key in keys] == [
        ("shop.example", "mail-rsa", "rsa"),
        ("shop.example", "mail-ed25519", "ed25519"),
    ]
    listed = run(settings, "dkim", "list").stdout.splitlines()
    assert listed[0] == f"shop.example  mail-rsa  rsa  {settings.parent}/dkim/shop.example.mail-rsa.pem"
    assert '"algorithm":"ed25519"' in run(settings, "dkim", "list", "--json").stdout.splitlines()[1]
    assert run(settings, "config", "check").exit_code == 0


def test_one_key_has_the_selector_that_was_named(settings: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "keys"
    words = ("dkim", "add", "shop.example", "--algorithm", "ed25519", "--selector", "s1", "--folder", str(elsewhere))
    assert run(settings, *words).exit_code == 0
    assert [path.name for path in elsewhere.iterdir()] == ["shop.example.s1.pem"]


def test_no_key_is_written_over_another(settings: Path) -> None:
    words = ("dkim", "add", "shop.example", "--algorithm", "ed25519", "--selector", "mail-ed25519")
    assert run(settings, *words).exit_code == 0
    before = {path: path.read_bytes() for path in (settings.parent / "dkim").iterdir()}
    again = run(settings, *words)
    assert again.exit_code == 1
    assert "is there already; choose another selector, or another folder" in again.stderr
    # nor is one of two made where the other is there
    assert run(settings, "dkim", "add", "shop.example", "--selector", "mail").exit_code == 1
    assert {path: path.read_bytes() for path in (settings.parent / "dkim").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "*.shop.example"], 2, "is no domain; write one: it signs for all the domains below it as well"),
        (["add", "a b"], 2, "not a host name"),
        (["add", "shop.example", "--selector", "../x"], 2, "is no selector"),
        (["add", "shop.example", "--selector", "\x1b[2J"], 2, "control characters"),
        (["add", "shop.example", "--selector", ".".join("x" * 32)], 2, "is too long; allowed are 64 characters"),
        (["add", "shop.example", "--algorithm", "dsa"], 2, "rsa2048"),
        (["add", "shop.example", "--folder", "/nowhere/at/all"], 1, "/nowhere/at cannot be written to"),
        (["add", "shop.example", "--folder", "/dev/null"], 1, "/dev/null is no folder"),
        (["check"], 1, "the settings have no [[dkim]]; `smarthost dkim add DOMAIN` makes keys"),
        (
            ["check", "shop.example"],
            1,
            "the settings have no [[dkim]] that signs for shop.example; `smarthost dkim add shop.example` makes keys",
        ),
        (["check", "*"], 2, "not a host name"),
    ],
)
def test_what_cannot_be_done_is_said(settings: Path, words: list[str], status: int, said: str) -> None:
    result = run(settings, "dkim", *words)
    assert result.exit_code == status, result.output
    assert said in result.stderr
    assert "\x1b" not in result.output


def test_without_a_settings_file_a_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.settings.file.MACHINE_WIDE", tmp_path / "none.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    without = CliRunner().invoke(app, ["dkim", "add", "shop.example"])
    assert (without.exit_code, without.stdout) == (2, "")
    assert "--folder" in without.stderr
    named = CliRunner().invoke(app, ["dkim", "add", "shop.example", "--folder", str(tmp_path / "keys")])
    assert named.exit_code == 0, named.output


def test_what_root_makes_is_given_to_whoever_has_the_spool(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    spool = tmp_path / "spool"
    spool.mkdir()
    settings.write_text(f'spool = "{spool}"\n')
    monkeypatch.setattr(
        "console.machine._owner", lambda folder: (os.getuid(), os.getgid()) if folder == spool else None
    )
    monkeypatch.setattr(os, "chown", lambda _, *owner: given.append(owner))
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    assert run(settings, "dkim", "add", "shop.example").exit_code == 0
    assert given == [(os.getuid(), os.getgid())] * 3  # the folder and two files


def test_config_check_and_list_name_a_key_that_cannot_be_used(settings: Path, tmp_path: Path) -> None:
    key = ed25519(tmp_path, "shop.example")
    settings.write_text(settings_of(key))
    assert run(settings, "config", "check").exit_code == 0
    key.key.write_text("no key")
    checked = run(settings, "config", "check")
    assert checked.exit_code == 1
    assert "dkim[0].key: " in checked.stderr
    assert "holds no key that can be read" in checked.stderr
    listed = run(settings, "dkim", "list")
    assert listed.stdout.startswith(f"shop.example  ed  cannot be used: {key.key} holds no key")
    asked = run(settings, "dkim", "check")
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert asked.stderr.startswith(f"ed._domainkey.shop.example: {key.key} holds no key")


def test_a_key_that_everybody_may_read_is_noted(settings: Path, tmp_path: Path) -> None:
    key = ed25519(tmp_path, "shop.example")
    settings.write_text(settings_of(key))
    assert not any(note.startswith("dkim") for note in load(settings).notes)
    key.key.chmod(0o644)
    tmp_path.chmod(0o755)
    (note,) = (note for note in load(settings).notes if note.startswith("dkim"))
    assert note.startswith(f"dkim[0].key: {key.key} may be read by everybody on this machine")
