"""A spool on a file system over a network is refused, with what to do."""

from pathlib import Path

import pytest

from engine.engine import CannotStart, Engine
from engine.queue.errors import QueueError
from engine.queue.sqlite import filesystems
from engine.settings.settings import Settings
from tests.clock import FakeClock
from tests.unit.sqlite.support import SqliteSpool, opened


def mounts(folder: Path, *lines: tuple[str, str]) -> Path:
    """A list as the kernel has it, of places and kinds."""
    path = folder / "mountinfo"
    path.write_text(
        "".join(
            f"{number} 1 98:0 / {place} rw,noatime shared:1 master:2 - {kind} source rw\n"
            for number, (place, kind) in enumerate((("/", "ext4"), *lines), 20)
        )
        + "a line of another kind\n"
    )
    return path


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse", "fuse.rclone"])
def test_over_a_network_it_is_not_safe(tmp_path: Path, kind: str) -> None:
    assert filesystems.unsafe(tmp_path / "spool", mounts(tmp_path, (str(tmp_path), kind))) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"])
def test_on_this_machine_it_is(tmp_path: Path, kind: str) -> None:
    assert filesystems.unsafe(tmp_path / "spool", mounts(tmp_path, (str(tmp_path), kind))) == ""


def test_what_lies_deepest_and_was_mounted_last_counts(tmp_path: Path) -> None:
    spool = tmp_path / "spool of mine"
    escaped = str(spool).replace(" ", "\\040")
    assert filesystems.kind_of(spool, mounts(tmp_path, (escaped, "nfs4"), (str(tmp_path), "xfs"))) == "nfs4"
    assert filesystems.kind_of(spool, mounts(tmp_path, (escaped, "nfs4"), (escaped, "xfs"))) == "xfs"
    assert filesystems.kind_of(tmp_path / "spoolside", mounts(tmp_path, (str(tmp_path / "spool"), "nfs"))) == "ext4"
    link = tmp_path / "link"
    link.symlink_to(spool)
    assert filesystems.kind_of(link, mounts(tmp_path, (escaped, "cifs"))) == "cifs"
    assert filesystems.kind_of(spool, tmp_path / "none") == ""  # no such list: another system than Linux


async def test_a_store_over_a_network_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool", FakeClock(), unsafe_on=lambda _: "nfs4")
    with pytest.raises(
        QueueError, match=r"kind nfs4, on which the queue is not safe: .* spool_on_any_file_system = true takes"
    ):
        await spool.queue.open()
    assert not (tmp_path / "spool").exists()
    async with opened(tmp_path, unsafe_on=lambda _: ""):
        pass


async def test_an_administrator_may_know_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.engine.unsafe", lambda _: "nfs")
    settings = Settings(hostname="relay.example.net", spool=tmp_path / "spool")
    with pytest.raises(CannotStart, match="file system of kind nfs"):
        await Engine(settings).start()
    queue = Engine(
        Settings(hostname="relay.example.net", spool=tmp_path / "spool", spool_on_any_file_system=True)
    ).queue
    await queue.open()
    await queue.close()
