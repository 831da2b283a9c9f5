"""The commands that look after a queue which no engine has open: check-spool and move-queue."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Protocol

import typer

from console.commands.door import Status, complain, say

Folder = Annotated[
    Path | None, typer.Argument(metavar="SPOOL", readable=False, help="The queue's folder; else the settings' one.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Put right what is not in order; the old queue is kept.")]
Found = tuple[bool, tuple[str, ...]]
From = Annotated[
    str, typer.Argument(metavar="FROM", help="The queue to be moved: a spool's folder, or postgresql://...")
]
To = Annotated[str, typer.Argument(metavar="TO", help="Where to: the same.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", readable=False, help="The database's; else as libpq finds it."),
]
Abandon = Annotated[bool, typer.Option("--abandon", help="End a move half-way: what is left stays where it is.")]
Lost = Annotated[
    bool, typer.Option("--lost", help="The same, where TO is gone for good: what may be there stays here, too.")
]
How = Literal["move", "abandon", "lost"]


class Keeper(Protocol):
    """Who does what the commands ask, and says whether that is well, and what to tell of it."""

    def checked(self, folder: Path | None, repair: bool) -> Found:
        """Look at a spool, or repair it."""

    def moved(
        self, source: str, target: str, tell: Callable[[str], None], password_file: Path | None, how: How
    ) -> Found:
        """Move a queue, or end that half-way, with the other one "lost" or not; `tell` is called with how far it is."""


def add_to(app: typer.Typer, keeper: Callable[[typer.Context], Keeper]) -> None:
    """Add the commands."""

    @app.command("check-spool")
    def check_spool(context: typer.Context, folder: Folder = None, repair: Repair = False) -> None:
        """Look for damage in the queue's file.

        Only while no engine owns the spool. Exit status: 0 in order, or repaired; 1 damaged, or it could not be done.
        """
        _tell(keeper(context).checked(folder, repair))

    @app.command("move-queue")
    def move_queue(
        context: typer.Context,
        source: From,
        target: To,
        password_file: PasswordFile = None,
        abandon: Abandon = False,
        lost: Lost = False,
    ) -> None:
        """Move a queue into a database, or back.

        Only while no engine has either open. Stopped or killed, it goes on when it is run again. Exit status: 0 all is
        moved; 1 some cannot be read and is left, or it could not be done.
        """
        how: How = "lost" if lost else "abandon" if abandon else "move"
        _tell(keeper(context).moved(source, target, say, password_file, how))


def _tell(found: Found) -> None:
    is_well, lines = found
    for line in lines:
        (say if is_well else complain)(line)
    if not is_well:
        raise typer.Exit(Status.REFUSED)
