"""The spool: the directory that is the queue, and the lock that gives it one owner."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.base.permission import refusal, unsafe, who, why_not


class SpoolError(Exception):
    """The spool directory cannot be used; the text names it and says why."""


class SpoolOwned(SpoolError):
    """Another engine owns the spool; `pid` is its process (0 where it did not say)."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path}: an engine with pid {pid} owns this spool")
        self.pid = pid


class Spool:
    """A spool directory, owned for as long as this is entered.

    The directory is made with mode 0700 where it is missing; one that is another's, or that others may write to, is
    refused. With a `group` it is 0710, so that its members reach the control socket and see nothing else; where
    `view_group` is another one it is 0711, for a directory has one group. The lock is the kernel's: it goes with the
    process, so a kill leaves nothing behind to be cleaned up. Raises SpoolOwned, SpoolError.
    """

    def __init__(self, path: Path, *, group: str = "", view_group: str = "") -> None:
        self.path = path
        self._groups = tuple(dict.fromkeys(filter(None, (group, view_group))))
        self._lock: int | None = None

    @property
    def drop(self) -> Path:
        """The watched folder."""
        return self.path / "drop"

    @property
    def control_socket(self) -> Path:
        """The operator's door."""
        return self.path / "control.sock"

    def __enter__(self) -> Self:
        try:
            self._make()
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise SpoolError(f"the spool {self.path}: {self._refused(error)}") from error
        except (OSError, LookupError) as error:
            raise SpoolError(f"{self.path}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(lock, 20).strip()
            os.close(lock)
            raise SpoolOwned(self.path, int(pid) if pid.isdigit() else 0) from error
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        self._lock = lock
        return self

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := unsafe(self.path, "the spool"):
            raise SpoolError(why)
        if self._groups:
            shutil.chown(self.path, group=self._groups[0])
            self.path.chmod(0o710 if len(self._groups) == 1 else 0o711)

    def look_at_drop(self) -> None:
        """See that nobody can meddle with what is left in the drop folder, where there is one. Raises SpoolError."""
        for folder in (self.drop, self.drop / "failed"):
            try:
                why = unsafe(folder, "the folder", may_be_shared=True)
            except FileNotFoundError:
                return
            except OSError as error:
                raise SpoolError(why_not(error, folder, "read")) from error
            if why:
                raise SpoolError(why)

    def _refused(self, error: PermissionError) -> str:
        if error.errno == errno.EPERM:  # only its owner gives a folder to a group, and only to one of theirs
            return f"{who()} may not give it to the group {self._groups[0]}: its owner, in that group, may, and root"
        made = next((folder for folder in (self.path, *self.path.parents) if os.path.lexists(folder)), self.path)
        lock = self.path / "lock"
        return refusal(lock, "written to") if os.path.lexists(lock) else refusal(made, "written to")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
