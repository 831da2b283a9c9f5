"""Who keeps the store's log from being copied: another program that stays with what it saw when it began to read.

SQLite copies no page beyond what its oldest reader sees, and begins the log anew only once nobody reads it: so long the
log grows with all that is written. Nothing but the end of that reader helps, so an operator is told which it is.
"""

import os
import time
from pathlib import Path

from engine.base.text import clean

_LOCKS = Path("/proc/locks")
# A reader holds a lock on one of these bytes of the log's index, a file beside the log (sqlite.org/walformat.html).
_READ_LOCKS = range(123, 128)
_OPEN = range(128, 129)  # and on this one, whoever has the file open
_OURS = 5.0  # seconds; a question of our own that takes longer may be what keeps the log


def trouble(stuck: tuple[int, float] | None, store: Path, seconds: float, locks: Path = _LOCKS) -> str:
    """What an operator is told of a log of so many bytes that are `stuck` since then, or "".

    `seconds` is how long our own oldest question has been read for; `locks` is the kernel's list of locks.
    """
    if stuck is None:
        return ""
    size, since = stuck
    grown = f"its log cannot be copied and has grown to {size / 2**20:,.0f} MiB"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(since))
    pids = others(store.with_name(f"{store.name}-shm"), locks)
    if not pids and seconds > _OURS:
        return f"a question asked of the queue is being answered for {seconds:,.0f} s: {grown}"
    who = f"another program{_in_brackets(pids)}"
    return f"{who} reads the queue since {at} UTC or longer: {grown}; it shrinks once that is done"


def others(index: Path, locks: Path = _LOCKS, held: range = _READ_LOCKS) -> list[int]:
    """The processes but ours that hold a lock of readers on a log's index, as far as the kernel tells.

    It must be asked this way: a program that opens and closes the index itself loses all its locks on it.
    """
    try:
        inode = index.stat().st_ino
        lines = locks.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    found: dict[int, None] = {}
    for line in lines:
        # 12: POSIX  ADVISORY  READ 4711 08:01:1234567 124 124; one that waits has "->" before its kind
        words = line.split()
        if len(words) != 8 or words[1] != "POSIX" or words[5].rpartition(":")[2] != str(inode):
            continue
        pid, first, last = words[4], words[6], words[7]
        if not (pid.isdigit() and first.isdigit() and last.isdigit()):
            continue
        if int(pid) != os.getpid() and any(int(first) <= byte <= int(last) for byte in held):
            found[int(pid)] = None
    return list(found)


def named(index: Path, locks: Path = _LOCKS) -> str:
    """The others, in brackets behind a space, or "" where none is known."""
    return _in_brackets(others(index, locks, _OPEN))


def _in_brackets(pids: list[int]) -> str:
    return f" ({', '.join(map(_named, pids))})" if pids else ""


def _named(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"pid {pid}"
    return f"{clean(name, 40)}, pid {pid}"
