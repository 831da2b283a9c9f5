"""The file of a Unix socket: made so that at no moment others may use it, known again, and taken away."""

import grp
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

EVERYBODY = "*"


class SocketFile:
    """A socket at `path`, for its owner alone (mode 0600), or for the named `group` too (0660), or for EVERYBODY."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self._group = group
        self._inode: tuple[int, int] | None = None

    def bind(self) -> socket.socket:
        """Make the file, in the place of a socket that was left behind; give the socket, which has yet to listen.

        Raises OSError, saying what is in the way.
        """
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise FileExistsError(f"{self.path} is there already and is no socket: move it away")
            self.path.unlink()
        is_grouped = self._group not in ("", EVERYBODY)
        try:
            group = grp.getgrnam(self._group).gr_gid if is_grouped else -1
        except KeyError:
            whose = f"which is to use {self.path.name}"
            raise OSError(f"there is no group {self._group!r} on this machine, {whose}") from None
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(bound.fileno(), 0o600)  # Linux gives the file the mode of the socket it is bound to
            bound.bind(str(self.path))
            self.path.chmod(0o600)
            if is_grouped:
                os.chown(self.path, -1, group)
            if self._group:
                self.path.chmod(0o660 if is_grouped else 0o666)
            found = self.path.lstat()
        except BaseException:
            bound.close()
            raise
        self._inode = (found.st_dev, found.st_ino)
        return bound

    @property
    def is_ours(self) -> bool:
        """Whether what is at the path is the socket that we have made."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def remove(self) -> None:
        """Take the file away, where it is the one that we have made."""
        with suppress(OSError):
            if self.is_ours:
                self.path.unlink()
        self._inode = None


def is_answered(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(str(path))
        except BlockingIOError:  # more wait there already than he takes in
            return True
        except OSError:
            return False
    return True
