"""The entry points. `smarthost sendmail` does without the command line of the others, which takes long to import."""

import sys


def main() -> None:
    """`smarthost`."""
    if sys.argv[1:2] == ["sendmail"]:
        sys.argv.pop(1)
        sendmail()
    from console.cli import main as line

    line()


def sendmail() -> None:
    """`smarthost-sendmail`, which may stand in the place of /usr/sbin/sendmail."""
    from engine.intake.sendmail.command import main as send

    sys.exit(send(sys.argv[1:]))
