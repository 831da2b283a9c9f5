"""The commands that look after who may log in to submit mail, and as whom: user add, senders, remove and list."""

import sys
from collections.abc import Callable
from typing import Annotated, NamedTuple, Protocol

import typer

from console.commands.door import Status, on_terminal, refuse, say, say_json
from console.commands.lists import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The login.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Senders = Annotated[
    list[str] | None,
    typer.Option(
        "--sender",
        metavar="ADDRESS",
        help='What it may send as, instead of its own address; also "*@example.org", or "*": anybody. May be repeated.',
    ),
]
Addresses = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ADDRESS]...", help='What it may send as; also "*@example.org", or "*" for anybody.'),
]
Own = Annotated[bool, typer.Option("--own", help="Its own address alone.")]


class Login(NamedTuple):
    """Who may log in, and as whom it may send: addresses, "*@" and a domain, or "*".

    `is_old`: it is from before senders were kept, and so may send as anybody.
    """

    name: str
    senders: tuple[str, ...]
    is_old: bool = False


class Users(Protocol):
    """The file of users, as these commands use it. What cannot be done is said, and the command left."""

    def set(self, name: str, password: str, senders: list[str] | None) -> bool:
        """Add a login, or give it a new password; False where it was there. None: its senders as they are."""
        ...

    def name_senders(self, name: str, senders: list[str]) -> None:
        """Let a login send as these, or as its own address alone where there are none."""
        ...

    def remove(self, name: str) -> None:
        """Take a login away."""
        ...

    def logins(self) -> list[Login]:
        """Every login, in the order of names."""
        ...

    def login(self, name: str) -> Login:
        """The login of this name."""
        ...


def app_for(users_of: Callable[[typer.Context], Users]) -> typer.Typer:
    """The commands, on the users that `users_of` finds."""
    app = typer.Typer(help="Look after who may submit mail.", no_args_is_help=True, rich_markup_mode=None)

    @app.callback()
    def _user() -> None:
        """Look after who may submit mail."""

    @app.command()
    def add(context: typer.Context, name: Name, password_stdin: FromStdin = False, sender: Senders = None) -> None:
        """Add a login, or give it a new password.

        The password is asked for on the terminal. It may send as its own address, which is its name, with @ and the
        name of this relay where it has none; --sender names others in its place.
        """
        users = users_of(context)
        new = users.set(name, _read() if password_stdin else _asked(name), sender or None)
        login = users.login(name)
        is_own = new and not sender and bool(login.senders)
        hint = " (its name is no address; --sender names others)" if is_own and "@" not in name else ""
        say(f"{name}: {'added' if new else 'has a new password'}; {_may(login)}{hint}")

    @app.command()
    def senders(context: typer.Context, name: Name, addresses: Addresses = None, own: Own = False) -> None:
        """Say as whom a login may send, or change it.

        A change counts from its next login on. Without addresses and --own nothing is changed.
        """
        if own and addresses:
            refuse("--own leaves it its own address alone, so no other can be named with it", Status.USAGE)
        users = users_of(context)
        if own or addresses:
            users.name_senders(name, addresses or [])
        say(f"{name}: {_may(users.login(name))}")

    @app.command()
    def remove(context: typer.Context, name: Name) -> None:
        """Take a login away."""
        users_of(context).remove(name)
        say(f"{name}: removed")

    @app.command("list")
    def list_(context: typer.Context, json: Json = False) -> None:
        """List the logins, and as whom each may send."""
        for login in users_of(context).logins():
            if json:
                say_json({"name": login.name, "senders": login.senders})
            else:
                say(f"{login.name}: {_may(login)}")

    return app


def _may(login: Login) -> str:
    """As whom a login may send."""
    if login.is_old:
        return "may send as anybody, being from before senders were kept"
    if "*" in login.senders:
        return "may send as anybody"
    if not login.senders:
        return "may send as nobody: its name makes no address, so name one with `smarthost user senders`"
    return f"may send as {', '.join(login.senders)}"


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
