"""smarthost run by somebody who is not root: a plain user, in groups of one's choice.

Where Python itself lies in a folder of root's, nobody else may start it: so a process begins as root, loads all that a
command may load, becomes that user, and then runs the command. Only root can do that.
"""

import grp
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "nobody"
GROUP = "mail"

_SCRIPT = """
import contextlib, encodings.idna, getpass, io, os, smtplib, sys, traceback
import console.commands.sendmail, engine.configfile, engine.intake.tls, engine.intake.users
from console.cli import main as line
from console.entry import main
if "attach" in sys.argv:
    import console.app, console.terminal, textual.drivers.linux_driver
if "serve" in sys.argv:
    import engine.engine
warm, settings = ["--spool", "/nowhere", "status"], os.environ.pop("SMARTHOST_CONFIG", None)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        asked, sys.argv = sys.argv, ["smarthost", *warm]
        line()
sys.argv = asked
if settings is not None:
    os.environ["SMARTHOST_CONFIG"] = settings
uid, gid, *groups = map(int, sys.argv[1].split(","))
os.setgroups(groups); os.setgid(gid); os.setuid(uid)
os.environ.update(HOME="/nonexistent", USER="nobody", LOGNAME="nobody")
sys.argv[:] = ["smarthost", *sys.argv[2:]]
main()
"""


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


def command(*words: str | Path, groups: Sequence[str] = ()) -> list[str]:
    """What runs `smarthost` with these words as the plain user, in these groups besides its own."""
    user = pwd.getpwnam(USER)
    ids = [user.pw_uid, user.pw_gid, *(grp.getgrnam(name).gr_gid for name in groups)]
    return [sys.executable, "-c", _SCRIPT, ",".join(map(str, ids)), *map(str, words)]


def run(
    *words: str | Path, groups: Sequence[str] = (), input: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    done = subprocess.run(
        command(*words, groups=groups),
        capture_output=True,
        input=input,
        timeout=60,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "200", **(env or {})},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
