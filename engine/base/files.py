"""Files that must outlive a kill: written beside their place, synced, and moved there; and names that are on disk."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def sync(path: Path) -> None:
    """Have what a file holds on disk, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(path: Path, content: bytes, *, owner: tuple[int, int] | None = None, is_new: bool = False) -> None:
    """Write a file of mode 0600 in the place of any there was; on disk when this returns. Raises OSError.

    It is written under a name that begins with a dot, and moved: a kill leaves the old one or the new one whole.
    `owner` is whom it is given to, by user and group; None: it stays the writer's. `is_new`: one that is there stays
    as it is, and this raises FileExistsError.
    """
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(file, "wb") as opened:
            if owner is not None:
                os.fchown(opened.fileno(), *owner)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        if is_new:
            path.hardlink_to(beside)
            beside.unlink()
        else:
            beside.rename(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync(path.parent)
