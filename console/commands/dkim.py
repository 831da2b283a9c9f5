"""The commands that look after the keys which sign mail: dkim add, dkim list, dkim check."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import typer
from msgspec import Struct

from console.commands.door import Status, complain, say, say_json
from console.commands.lists import Json


class Kind(StrEnum):
    """What keys are made."""

    RSA = "rsa2048"
    ED25519 = "ed25519"
    BOTH = "both"


class Listed(Struct, frozen=True):
    """A key of the settings; `algorithm` is "" where it cannot be used, and `trouble` is why."""

    domain: str
    selector: str
    algorithm: str
    file: str
    trouble: str = ""


Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The domain that signs, for those below it as well.")]
OneDomain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Only the keys that sign for this domain.")]
Selector = Annotated[
    str, typer.Option("--selector", metavar="NAME", help="What the key is called; else by the day and the algorithm.")
]
Of = Annotated[Kind, typer.Option("--algorithm", help="Both, for verifiers that do not know Ed25519.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="FOLDER", readable=False, help="Where to; else dkim/ beside the settings."),
]


class Keys(Protocol):
    """The keys, as these commands use them. What cannot be done is said, and the command left."""

    def add(self, domain: str, selector: str, kind: str, folder: Path | None) -> Sequence[str]:
        """Make keys; give what is to be told of it, in lines."""
        ...

    def listed(self) -> Sequence[Listed]:
        """Every key of the settings."""
        ...

    def check(self, domain: str) -> Sequence[tuple[bool, str]]:
        """Whether the DNS has each key of a domain, or of all where that is "", and a line of it."""
        ...


def app_for(keys_of: Callable[[typer.Context], Keys]) -> typer.Typer:
    """The commands, on the keys that `keys_of` finds."""
    app = typer.Typer(help="Look after the keys that sign mail.", no_args_is_help=True, rich_markup_mode=None)

    @app.callback()
    def _dkim() -> None:
        """Look after the keys that sign mail."""

    @app.command()
    def add(
        context: typer.Context,
        domain: Domain,
        selector: Selector = "",
        algorithm: Of = Kind.BOTH,
        folder: Folder = None,
    ) -> None:
        """Make keys for a domain.

        And print what the DNS and the settings need. No file that is there is overwritten.
        """
        for line in keys_of(context).add(domain, selector, algorithm.value, folder):
            say(line)

    @app.command("list")
    def list_(context: typer.Context, json: Json = False) -> None:
        """List the keys of the settings."""
        for each in keys_of(context).listed():
            if json:
                say_json(each)
            else:
                what = f"{each.algorithm}  {each.file}" if each.algorithm else f"cannot be used: {each.trouble}"
                say(f"{each.domain}  {each.selector}  {what}")

    @app.command()
    def check(context: typer.Context, domain: OneDomain = "") -> None:
        """Ask the DNS for the keys.

        Exit status: 0 it has all of them, for every verifier to use; 1 it has not, or that cannot be told.
        """
        found = keys_of(context).check(domain)
        for is_well, line in found:
            (say if is_well else complain)(line)
        if not all(is_well for is_well, _ in found):
            raise typer.Exit(Status.REFUSED)

    return app
