"""All that a command may load, loaded: whoever runs one from here on need not be able to read Python's own folders."""

import contextlib
import encodings.idna  # noqa: F401
import getpass  # noqa: F401
import io
import smtplib  # noqa: F401
import sys
import traceback  # noqa: F401

import textual.drivers.linux_driver  # noqa: F401

import console.app
import console.terminal  # noqa: F401
import engine.engine
import engine.intake.sendmail.command
import engine.running  # noqa: F401
from console.cli import main


def _what_is_imported_on_the_way() -> None:
    asked, sys.argv = sys.argv, ["smarthost", "--spool", "/nowhere", "status"]
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), contextlib.suppress(SystemExit):
        main()
    sys.argv = asked


_what_is_imported_on_the_way()
