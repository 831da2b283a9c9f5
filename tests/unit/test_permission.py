"""What the system does not let us is said with whose it is and who may."""

import grp
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.base import permission

ME = pwd.getpwuid(os.geteuid()).pw_name


class Group:
    """A group of this machine, as grp gives it."""

    gr_name = "mailers"

    def __init__(self, members: Sequence[str]) -> None:
        self.gr_mem = list(members)


def as_a_stranger(monkeypatch: pytest.MonkeyPatch, members: Sequence[str] = ()) -> None:
    """In no group that anything is of; every group is called "mailers" and has these members."""
    monkeypatch.setattr(os, "getegid", lambda: 54321)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(grp, "getgrgid", lambda _: Group(members))


def test_who_one_is_has_user_and_groups_and_no_endless_list(monkeypatch: pytest.MonkeyPatch) -> None:
    own = permission._group(os.getegid())
    monkeypatch.setattr(os, "getgroups", list)
    assert permission.who() == f"{ME} (in group {own})"
    monkeypatch.setattr(os, "getgroups", lambda: list(range(70_000, 70_020)))
    assert permission.who().startswith(f"{ME} (in groups {own}, gid 70000, ")
    assert permission.who().endswith(" and 13 more)")


@pytest.mark.parametrize(
    ("mode", "members", "advice"),
    [
        (0o600, (), f"do this as {ME}, or let others do so"),
        (0o640, (), f"do this as a member of mailers or as {ME}"),
        (0o640, (ME,), "you were made a member of mailers after this session began, so log in anew"),
    ],
)
def test_it_is_said_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, members: Sequence[str], advice: str
) -> None:
    file = tmp_path / "secret"
    file.touch()
    file.chmod(mode)
    as_a_stranger(monkeypatch, members)
    said = permission.refusal(file, "read")
    assert said == (
        f"{file} may not be read by {ME} (in group mailers); it is {ME}'s, group mailers, mode {mode:04o}: {advice}"
    )


def test_what_is_no_matter_of_rights_is_said_in_the_systems_words(tmp_path: Path) -> None:
    file = tmp_path / "none"
    assert permission.why_not(FileNotFoundError(2, "No such file or directory"), file, "read") == (
        f"{file} cannot be read: No such file or directory"
    )
