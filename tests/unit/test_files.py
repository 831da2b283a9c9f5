"""What is put in a place is there whole, or what was there before."""

import os
from pathlib import Path

import pytest

from engine.base.files import put


def test_a_file_is_put_in_the_place_of_another_and_is_the_writers_alone(tmp_path: Path) -> None:
    path = tmp_path / "users"
    for content in (b"old", b"new"):
        put(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "users"
    put(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_must_be_new_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    put(path, b"old", is_new=True)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        put(path, b"new", is_new=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_until_it_is_there_it_has_a_name_that_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(path.name for path in tmp_path.iterdir()))
    put(tmp_path / "letter.eml", b"Subject: hello")
    assert seen[0].startswith(".letter.eml.")
    assert seen[1:] == ["letter.eml"]
