"""A folder that others may write to holds no mail of ours: refused with whose it is, its mode and what to do."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.permission import unsafe
from engine.engine import CannotStart, Engine
from engine.queue.spool import Spool, SpoolError
from engine.settings.settings import Control, Dns, Intake, Nameserver, Route, Settings, Smtp, Submission
from tests.plain_user import USER, needs_root
from tests.unit.fake_relay import short_folder

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield Path(folder)


def spool_of(folder: Path, mode: int) -> Path:
    spool = folder / "spool"
    spool.mkdir()
    spool.chmod(mode)
    return spool


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777, 0o1770])
def test_a_spool_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    spool = spool_of(folder, mode)
    with pytest.raises(SpoolError) as refused, Spool(spool):
        pass
    said = str(refused.value)
    assert said.startswith(f"the spool {spool} is {ME}'s, group ")
    assert f"mode {mode:04o}: others may write to it; look what is in it, then chmod go-w {spool}" in said
    assert list(spool.iterdir()) == [], "nothing is left in it"


@pytest.mark.parametrize("group", ["", "tty"])
def test_a_group_that_is_let_in_is_no_way_around(folder: Path, group: str) -> None:
    spool = spool_of(folder, 0o770)
    with pytest.raises(SpoolError, match="others may write to it"), Spool(spool, group=group):
        pass
    assert spool.stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o750, 0o755])
def test_a_spool_that_others_may_only_look_into_will_do(folder: Path, mode: int) -> None:
    with Spool(spool_of(folder, mode)) as spool:
        assert (spool.path / "lock").exists()


@needs_root
def test_a_spool_of_another_owner_is_refused(folder: Path) -> None:
    spool = spool_of(folder, 0o700)
    os.chown(spool, pwd.getpwnam(USER).pw_uid, -1)
    with pytest.raises(SpoolError) as refused, Spool(spool):
        pass
    assert f"the spool {spool} is {USER}'s, group " in str(refused.value)
    assert f"mode 0700, and this is {ME}: give it to {ME} (chown {ME} {spool})" in str(refused.value)


def test_a_spool_of_roots_will_do_for_anybody_who_may_write_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_of(folder, 0o700)
    owner = spool.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert unsafe(spool, "the spool") == "" if owner == 0 else "this is uid 54321" in unsafe(spool, "the spool")


@pytest.mark.parametrize(("mode", "why"), [(0o1777, ""), (0o1770, ""), (0o700, ""), (0o777, "+t"), (0o770, "+t")])
def test_a_drop_folder_may_be_shared_under_the_sticky_bit_alone(folder: Path, mode: int, why: str) -> None:
    spool = Spool(folder)
    spool.look_at_drop()
    spool.drop.mkdir()
    spool.drop.chmod(mode)
    if not why:
        spool.look_at_drop()
        return
    with pytest.raises(SpoolError) as refused:
        spool.look_at_drop()
    assert f"the folder {spool.drop} is {ME}'s" in str(refused.value)
    assert f"chmod go-w {spool.drop}; to share it, chmod +t {spool.drop}" in str(refused.value)


@needs_root
def test_what_is_set_aside_goes_into_no_folder_of_anothers(folder: Path) -> None:
    spool = Spool(folder)
    (spool.drop / "failed").mkdir(parents=True)
    spool.drop.chmod(0o1777)
    os.chown(spool.drop / "failed", pwd.getpwnam(USER).pw_uid, -1)
    with pytest.raises(SpoolError, match="drop/failed is nobody's"):
        spool.look_at_drop()


def settings(spool: Path, **more: object) -> Settings:
    fields: dict[str, object] = {
        "hostname": "relay.example.net",
        "spool": spool,
        "intake": Intake(min_free=0, smtp=Smtp(listen=())),
        "dns": Dns(nameservers=(Nameserver("127.0.0.1", 1),)),
    }
    return Settings(**(fields | more))  # type: ignore[arg-type]


async def test_an_engine_does_not_start_on_them_and_leaves_nothing_open(folder: Path) -> None:
    spool = folder / "spool"
    (spool / "drop").mkdir(parents=True)
    (spool / "drop").chmod(0o777)
    with pytest.raises(CannotStart, match=r"drop is .* mode 0777: others may write to it"):
        await Engine(settings(spool)).start()
    assert not (spool / "control.sock").exists()
    (spool / "drop").chmod(0o1777)
    engine = Engine(settings(spool))
    await engine.start()
    await engine.stop(drain=0)


@pytest.mark.parametrize(
    ("group", "view_group", "mode"),
    [("", "", 0o700), ("tty", "", 0o710), ("", "tty", 0o710), ("tty", "tty", 0o710), ("tty", "mail", 0o711)],
)
@needs_root
def test_both_groups_reach_their_socket_and_see_nothing_else(
    folder: Path, group: str, view_group: str, mode: int
) -> None:
    with Spool(folder / "spool", group=group, view_group=view_group) as spool:
        found = spool.path.stat()
        assert found.st_mode & 0o7777 == mode


@pytest.mark.parametrize(("spool", "drop"), [(0o777, 0o700), (0o755, 0o777), (0o755, 0o1777)])
def test_whoever_checks_the_settings_is_told_before_an_engine_refuses(folder: Path, spool: int, drop: int) -> None:
    made = settings(folder / "spool")
    before = made.notes
    (folder / "spool" / "drop").mkdir(parents=True)
    (folder / "spool").chmod(spool)
    (folder / "spool" / "drop").chmod(drop)
    open_to_others = {0o777: folder / "spool", 0o755: folder / "spool" / "drop"}[spool]
    told = [f"spool: others may write to {open_to_others}, and so no engine starts on it; chmod go-w {open_to_others}"]
    assert [note for note in made.notes if note not in before] == ([] if drop == 0o1777 else told)


# -- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_that_everybody_may_read_are_noted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    key, users, password = (tmp_path / name for name in ("key.pem", "users", "password"))
    for file in (key, users, password):
        file.touch()
        file.chmod(0o640)
    route = Route(domain="*", host="up.example", tls="required", username="u", password_file=password)
    made = settings(tmp_path / "spool", intake=Intake(submission=Submission(key=key, users=users)), route=(route,))
    before = made.notes
    for file in (key, users, password):
        file.chmod(0o644)
    assert [note for note in made.notes if note not in before] == [
        f"intake.submission.key: {key} may be read by everybody on this machine (mode 0644); chmod o-r it",
        f"intake.submission.users: {users} may be read by everybody on this machine (mode 0644); chmod o-r it",
        f"route[0].password_file: {password} may be read by everybody on this machine (mode 0644); chmod o-r it",
    ]
    tmp_path.chmod(0o700)
    assert made.notes == before, "where nobody may go nobody reads"


async def test_health_says_so_too_and_follows_what_is_done_about_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o644)
    route = Route(domain="*", host="up.example", tls="required", username="u", password_file=password)
    engine = Engine(settings(tmp_path / "spool", route=(route,), control=Control()))
    await engine.start()
    try:
        assert [note for note in engine.notes if "password" in note]
        password.chmod(0o600)
        await engine._look()
        assert not [note for note in engine.notes if "password" in note]
    finally:
        await engine.stop(drain=0)
