"""On which file systems the store is not safe: the log's index is shared memory, and locks and syncs must hold.

SQLite takes WAL mode over a network without a word, and is not safe there (sqlite.org/wal.html, 1): what another
machine has written is not seen in this one's memory, and many a server says of what it was to sync that it is on disk.
"""

from pathlib import Path

from engine.queue.errors import QueueError

_MOUNTS = Path("/proc/self/mountinfo")
_ELSEWHERE = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "ceph", "lustre", "beegfs", "gpfs", "pvfs2",
    "orangefs", "glusterfs", "coda", "vboxsf", "vmhgfs", "prl_fs", "acfs", "davfs",
})  # fmt: skip
# Of what a program on this machine keeps as a file system, these only reach into a local one.
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs", "fuse.bindfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs",
                         "fuse.mergerfs", "fuse.lxcfs", "fuse.ntfs-3g", "fuse.zfs"})  # fmt: skip


def unsafe(folder: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system a folder is on, where the store is not safe on it; else, or where unknown, ""."""
    kind = kind_of(folder, mounts)
    is_fuse = kind == "fuse" or kind.startswith("fuse.")
    return kind if kind in _ELSEWHERE or (is_fuse and kind not in _LOCAL_FUSE) else ""


def refusal(folder: Path, kind: str) -> QueueError:
    """Why the store is not opened there, and what to do."""
    return QueueError(
        f"the spool {folder} is on a file system of kind {kind}, on which the queue is not safe: put it on a disk of "
        "this machine (spool = ...); spool_on_any_file_system = true takes it all the same"
    )


def kind_of(folder: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system a folder is on, by the kernel's list of mounts; "" where there is no such list."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        where = folder.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:
        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw: the fifth is where, and behind "-" which
        first, _, second = line.partition(" - ")
        words, kinds = first.split(), second.split()
        if len(words) < 5 or not kinds:
            continue
        place = Path(_unescaped(words[4]))
        if (where == place or place in where.parents) and len(place.parts) >= depth:  # the last one lies on top
            found, depth = kinds[0], len(place.parts)
    return found


def _unescaped(word: str) -> str:
    """A path as it is: the kernel writes blanks and backslashes as \\040 and the like."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, char)
    return word
