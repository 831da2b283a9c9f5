"""smarthost run by somebody who is not root: a plain user, in groups of one's choice.

Where Python itself lies in a folder of root's, nobody else may start it: so a process begins as root, loads all that a
command may load, becomes that user, and then runs the command. Only root can do that. What is run to its end comes of
one process that has loaded all of it once.
"""

import grp
import multiprocessing
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from console.entry import main

USER = "nobody"
GROUP = "mail"
SECONDS = 60  # for a command to end

_STREAMS = ("stdin", "stdout", "stderr")
_starting = multiprocessing.get_context("forkserver")
_starting.set_forkserver_preload([__name__, "tests.loaded"])


def _missing() -> str:
    if os.geteuid() != 0:
        return "only root can run a command as somebody else"
    try:
        pwd.getpwnam(USER), grp.getgrnam(GROUP)
    except KeyError as error:
        return f"this machine has no {error}"
    return ""


needs_root = pytest.mark.skipif(bool(_missing()), reason=_missing() or "nothing is missing")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and list; a short name: a Unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def become(ids: Sequence[int], words: Sequence[str]) -> None:
    """Run a command as somebody else, in the process that this is. `ids` are of the user and of all groups."""
    import tests.loaded  # noqa: F401

    uid, gid, *groups = ids
    os.chdir("/")
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
    os.environ.update(HOME="/nonexistent", USER=USER, LOGNAME=USER)
    sys.argv[:] = ["smarthost", *words]
    main()


def command(*words: str | Path, groups: Sequence[str] = ()) -> list[str]:
    """What runs `smarthost` with these words as the plain user, in these groups besides its own."""
    script = f"from tests.plain_user import become; become({_ids(groups)}, {[str(word) for word in words]})"
    return [sys.executable, "-c", script]


def run(
    *words: str | Path, groups: Sequence[str] = (), input: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    asked = [str(word) for word in words]
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "200", **(env or {})}
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        for name in _STREAMS:
            Path(folder, name).write_bytes(input if name == "stdin" else b"")
        process = _starting.Process(target=_begin, args=(folder, env, _ids(groups), asked))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(asked, SECONDS)
        said, complained = (Path(folder, name).read_text() for name in _STREAMS[1:])
    with closing(process):
        return subprocess.CompletedProcess(asked, process.exitcode, said, complained)


def _begin(folder: str, env: dict[str, str], ids: Sequence[int], words: Sequence[str]) -> None:
    for number, name in enumerate(_STREAMS):
        opened = os.open(Path(folder, name), os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    os.environ.clear()
    os.environ.update(env)
    become(ids, words)


def _ids(groups: Sequence[str]) -> list[int]:
    user = pwd.getpwnam(USER)
    return [user.pw_uid, user.pw_gid, *(grp.getgrnam(name).gr_gid for name in groups)]
