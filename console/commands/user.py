"""The commands that look after who may log in to submit mail: user add, user remove, user list."""

import sys
from collections.abc import Callable
from typing import Annotated, Protocol

import typer

from console.commands.door import Status, on_terminal, refuse, say, say_json
from console.commands.lists import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The login.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


class Users(Protocol):
    """The file of users, as these commands use it. What cannot be done is said, and the command left."""

    def set(self, name: str, password: str) -> bool:
        """Add a login, or give it a new password; False where it was there."""
        ...

    def remove(self, name: str) -> None:
        """Take a login away."""
        ...

    def names(self) -> list[str]:
        """Every login, in order."""
        ...


def app_for(users_of: Callable[[typer.Context], Users]) -> typer.Typer:
    """The commands, on the users that `users_of` finds."""
    app = typer.Typer(help="Look after who may submit mail.", no_args_is_help=True, rich_markup_mode=None)

    @app.callback()
    def _user() -> None:
        """Look after who may submit mail."""

    @app.command()
    def add(context: typer.Context, name: Name, password_stdin: FromStdin = False) -> None:
        """Add a login, or give it a new password.

        The password is asked for on the terminal.
        """
        users = users_of(context)
        new = users.set(name, _read() if password_stdin else _asked(name))
        say(f"{name}: {'added' if new else 'has a new password'}")

    @app.command()
    def remove(context: typer.Context, name: Name) -> None:
        """Take a login away."""
        users_of(context).remove(name)
        say(f"{name}: removed")

    @app.command("list")
    def list_(context: typer.Context, json: Json = False) -> None:
        """List the logins."""
        for name in users_of(context).names():
            if json:
                say_json({"name": name})
            else:
                say(name)

    return app


def _read() -> str:
    """One line of standard input."""
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        refuse("the password on standard input is not UTF-8", Status.USAGE)


def _asked(name: str) -> str:
    if not on_terminal():
        refuse("there is no terminal to ask for the password on; --password-stdin reads it", Status.USAGE)
    password: str = typer.prompt(f"password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    return password
