"""The command that looks after a spool which no engine owns: check-spool."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from console.commands.door import Status, complain, say

Folder = Annotated[
    Path | None, typer.Argument(metavar="SPOOL", readable=False, help="The queue's folder; else the settings' one.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Put right what is not in order; the old queue is kept.")]
Found = tuple[bool, tuple[str, ...]]


def add_to(app: typer.Typer, checked: Callable[[typer.Context, Path | None, bool], Found]) -> None:
    """Add the command; `checked` looks at a spool, or repairs it, and says whether it is in order and what to tell."""

    @app.command("check-spool")
    def check_spool(context: typer.Context, folder: Folder = None, repair: Repair = False) -> None:
        """Look for damage in the queue's file.

        Only while no engine owns the spool. Exit status: 0 in order, or repaired; 1 damaged, or it could not be done.
        """
        is_sound, lines = checked(context, folder, repair)
        for line in lines:
            (say if is_sound else complain)(line)
        if not is_sound:
            raise typer.Exit(Status.REFUSED)
