"""35. A door that cannot be opened is named, with what an administrator can do about it."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from engine.engine import CannotStart, Engine
from engine.settings.settings import Intake, Listen, Settings, Smtp


@pytest.mark.parametrize(("port", "hint"), [(25, True), (2525, False)])
async def test_a_port_that_only_root_may_open_says_which_right_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int, hint: bool
) -> None:
    async def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    settings = Settings(
        hostname="relay.example.net",
        spool=tmp_path / "spool",
        intake=Intake(smtp=Smtp(listen=(Listen("127.0.0.1", port),))),
    )
    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", denied)
    with pytest.raises(CannotStart, match=f"cannot listen on 127.0.0.1:{port}: Permission denied") as refused:
        await Engine(settings).start()
    assert ("CAP_NET_BIND_SERVICE" in str(refused.value)) == hint
