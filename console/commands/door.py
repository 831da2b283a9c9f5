"""How a command reaches the engine, what it says on the way out, and the exit status it leaves."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
import typer

from console.format import safe
from engine.control.client import Barred, Client, EngineUnreachable, Impostor, Refused

T = TypeVar("T")


class Status(IntEnum):
    """What the exit status of a command says."""

    DONE = 0
    REFUSED = 1  # or nothing matched
    USAGE = 2
    NO_ENGINE = 3


class Door:
    """The way to the engine whose socket `find` gives."""

    def __init__(self, find: Callable[[], Path]) -> None:
        self._find = find

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do `work` with a client. Where the engine refuses or is not there, say so and leave with that status."""
        socket = self._find()

        async def with_client() -> T:
            async with Client(socket) as client:
                return await work(client)

        try:
            return asyncio.run(with_client())
        except Refused as error:
            refusal = error.refusal
            complain(": ".join(filter(None, (refusal.where, refusal.what))))
            if refusal.allowed:
                complain(f"allowed: {refusal.allowed}")
            raise typer.Exit(Status.REFUSED) from error
        except EngineUnreachable as error:
            complain(str(error))
            if not isinstance(error, Barred | Impostor):
                complain("start one with `smarthost serve`, or with `smarthost` to see it at work")
            raise typer.Exit(Status.NO_ENGINE) from error
        except BrokenPipeError as error:
            hush()
            raise typer.Exit(Status.DONE) from error


def door_of(context: typer.Context) -> Door:
    """The door that the front of the command line has made."""
    found = context.find_object(Door)
    if found is None:
        raise RuntimeError("the command was not started through console.cli")
    return found


def say(text: str) -> None:
    """Write a line to standard output; nothing in it can steer a terminal."""
    _write(safe(text))


def say_json(view: object) -> None:
    """Write a view as one line of JSON, in which what a terminal could be steered by is escaped."""
    text = msgspec.json.encode(view).decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    _write(text)


def complain(text: str) -> None:
    """Write a line to standard error."""
    typer.echo(safe(text), err=True)


def refuse(text: str, status: Status = Status.REFUSED) -> NoReturn:
    """Say why not, and leave."""
    complain(text)
    raise typer.Exit(status)


def _write(line: str) -> None:
    try:
        typer.echo(line)
    except BrokenPipeError as error:  # as in `smarthost queue | head`
        hush()
        raise typer.Exit(Status.DONE) from error


def hush() -> None:
    """Nobody reads standard output any more: what is left to write goes nowhere, without complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def on_terminal() -> bool:
    """Whether there is a person to ask."""
    return sys.stdin.isatty()
