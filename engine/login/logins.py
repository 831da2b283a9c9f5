"""The logins that the settings have, by the route that they are for."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.base.clock import Clock
from engine.dns.lookups import Lookups
from engine.login.command import TokenCommand
from engine.login.endpoint import TokenEndpoint
from engine.login.login import Login, Password, Tokens
from engine.settings.settings import Route, Settings

FOLDER = "tokens"  # in the spool: refresh tokens that endpoints gave in the place of those in the settings


def logins(
    settings: Settings, lookups: Lookups, clock: Clock, password_in: Callable[[str, Path], str]
) -> dict[str, Login]:
    """The login of each route that has one, by its domain. `password_in` reads a file, and says whose it is."""
    of = partial(_login, lookups=lookups, clock=clock, password_in=password_in, folder=settings.spool / FOLDER)
    return {route.domain: of(route) for route in settings.route if route.username}


def _login(
    route: Route, *, lookups: Lookups, clock: Clock, password_in: Callable[[str, Path], str], folder: Path
) -> Login:
    if route.oauth is not None:
        endpoint = TokenEndpoint(route.oauth, route.username, lookups, folder)
        return Tokens(route.username, endpoint, clock)
    if route.token_command:
        return Tokens(route.username, TokenCommand(route.token_command), clock)
    assert route.password_file is not None, "a username has one of the three"
    return Password(route.username, password_in(f"the route of {route.domain}", route.password_file))
