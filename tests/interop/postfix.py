"""A Postfix of our own: its queue, its settings and its log in a folder that goes with it. It takes root to run one."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.needs import program

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can start a Postfix")

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example.net
inet_interfaces = all
inet_protocols = ipv4
mydestination =
mynetworks = 127.0.0.0/8
smtp_host_lookup = native
smtpd_peername_lookup = no
"""

_MASTER = """
{address}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix(address: str, port: int, settings: str) -> Iterator[Path]:
    """Run a Postfix that listens there; give its log. `{folder}` in its settings is where its files may lie."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("queue", "data"):
            (folder / part).mkdir()
        subprocess.run(["chown", "postfix", folder / "data"], check=True)
        (folder / "main.cf").write_text((_MAIN + settings).format(folder=folder, address=address))
        (folder / "master.cf").write_text(_MASTER.format(address=address, port=port))

        def control(verb: str) -> None:
            subprocess.run([program("postfix"), "-c", folder, verb], check=True, capture_output=True)

        control("start")
        try:
            yield folder / "log"
        finally:
            control("stop")
