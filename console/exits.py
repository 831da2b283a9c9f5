"""How the operator leaves: for good, or to the shell for a while."""

import os
import signal

from console.desk import Desk
from console.screens.dialogs import Dialog
from console.screens.front import Front
from console.widgets.document import Para, para


async def leave(console: Desk[Front]) -> None:
    """End the console; where the relay runs inside it, after a question, since that ends with it."""
    if not console.engine_inside:
        console.exit()
        return
    said = "The relay runs inside this console. Quitting drains it: what is being sent is finished, then it stops. "
    said += (
        "What waits is deleted with the demo's spool: nothing of a demo is kept."
        if console.is_demo
        else "What waits stays in the spool and goes on at the next start."
    )
    body = [Para(), para((f"  {said}", ""), hang=2), Para()]
    if await console.ask(Dialog("Quit and stop the relay?", body, ok="Quit and stop", danger=True)) is not None:
        console.exit()


def background(console: Desk[Front]) -> None:
    """Stop as any program does at ctrl+z, with all that runs in this job; SIGCONT brings the screen back."""
    if console.engine_inside:
        console.tell("✗ not stopped: the relay runs inside this console, and mail would stand still", "warn")
    elif console.is_headless or os.getpgrp() == os.getsid(0):
        console.tell("✗ not stopped: there is no shell here that would bring it back", "warn")
    else:
        os.kill(0, signal.SIGTSTP)
