"""An engine that kills itself at a named step, the first time it comes there: `python -m tests.interop.dying STEP ...`.

Behind the step stands the command of `smarthost serve` in its place. Nothing in the engine knows of this: the one
function that a step begins or ends is wrapped from outside.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

from engine.delivery.attempt import AttemptManager
from engine.queue.sqlite import mail, notifications, settlements
from engine.queue.sqlite.arrivals import Arrivals
from engine.queue.sqlite.claims import Claims
from engine.running import run_daemon
from engine.settings.file import load

GO_ON = "answered"  # a file in the folder of the settings: the sender has seen its 250


def die() -> NoReturn:
    """kill -9, by ourselves."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def before(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def dying(*_: Any, **__: Any) -> NoReturn:
        die()

    return dying


def after(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def dying(*args: Any, **keywords: Any) -> NoReturn:
        await function(*args, **keywords)
        die()

    return dying


def within(function: Callable[..., Any]) -> Callable[..., Any]:
    """After a change within a transaction, before its commit."""

    def dying(*args: Any, **keywords: Any) -> NoReturn:
        function(*args, **keywords)
        die()

    return dying


def once_answered(folder: Path) -> Callable[..., Awaitable[Any]]:
    async def dying(*_: Any, **__: Any) -> NoReturn:
        while not (folder / GO_ON).exists():
            await asyncio.sleep(0.01)
        die()

    return dying


def arm(step: str, folder: Path) -> None:
    """Have this process die at a step."""
    arrivals: Any = Arrivals
    claims: Any = Claims
    match step:
        case "body written":
            mail.enqueue = within(mail.enqueue)
        case "commit":
            arrivals.enqueue = after(arrivals.enqueue)
        case "250":
            claims.claim_site = once_answered(folder)
        case "claim":
            claims.claim_site = after(claims.claim_site)
        case "peer's 250":
            AttemptManager.report = before(AttemptManager.report)  # type: ignore[assignment, method-assign]
        case "settle" | "bounce":
            settlements.settle = within(settlements.settle)
        case "settle commit" | "bounce commit":
            claims.settle = after(claims.settle)
        case "telling":
            notifications.tell = within(notifications.tell)
        case "telling commit":
            claims.tell = after(claims.tell)
        case _:
            raise ValueError(step)


if __name__ == "__main__":
    step, _, _, path, _ = sys.argv[1:]
    arm(step, Path(path).parent)
    run_daemon(load(Path(path)))
