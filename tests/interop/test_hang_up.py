"""A console whose line drops while it still has something to draw ends like any other."""

import os
import pty
import subprocess
import sys

_LINE_DROPS = """
import os, sys
from console import terminal

class App:
    is_running, return_code = False, 0

    def run(self):
        os.write(1, b"drawn")
        while not terminal._hung_up():
            pass
        sys.__stdout__.write("what nobody will read")
        sys.__stderr__.write("nor this")

os._exit = lambda status: None  # the app does end in time
terminal.run(App())
"""


def test_what_is_left_to_draw_when_the_line_drops_is_no_failure() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _LINE_DROPS], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    assert os.read(master, 100) == b"drawn"
    os.close(master)
    assert process.wait(60) == 0
