"""What keeps an engine from starting is said in a line that names it."""

from pathlib import Path

import pytest

from engine.engine import CannotStart, Engine
from engine.settings.settings import Route, Settings


@pytest.mark.parametrize(("content", "why"), [(b"caf\xe9\n", "it is not UTF-8"), (None, "No such file")])
def test_a_password_that_cannot_be_read_is_named_with_its_route(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    password = tmp_path / "password"
    if content is not None:
        password.write_bytes(content)
    route = Route(domain="*", host="up.example", tls="required", username="u", password_file=password)
    with pytest.raises(CannotStart, match=rf"the route of \*: password_file {password}: {why}"):
        Engine(Settings(hostname="relay.example.net", spool=tmp_path / "spool", route=(route,)))
