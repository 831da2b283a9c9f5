"""Who is at the other end of a control socket: the local user, as the kernel knows it."""

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.local_user import as_peer, login_of, uid_behind
from engine.model.event import ENGINE

if TYPE_CHECKING:
    from aiohttp import web


def view_socket(control: Path) -> Path:
    """The socket for looking, beside the operators' one."""
    return control.with_name("control-view.sock")


async def actor(request: "web.Request") -> str:
    """The login name of whoever sent this request, or "uid 1234" where the user has none."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    uid = None if peer is None else uid_behind(peer.fileno())
    # Names may come from a directory on the network: asking for one must not stop the engine.
    return "unknown" if uid is None else await asyncio.to_thread(_name, uid)


async def local_user(request: "web.Request") -> str:
    """Who sent this request, as intake has local users: `unix uid 1000 (ann)`."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    uid = None if peer is None else uid_behind(peer.fileno())
    return "unix" if uid is None else as_peer(uid, await asyncio.to_thread(login_of, uid))


def name_of(uid: int) -> str:
    """What a user is called, or "uid 1234"."""
    return _name(uid)


@lru_cache(maxsize=256)
def _name(uid: int) -> str:
    name = login_of(uid)
    if not name:
        return f"uid {uid}"
    return f"{name} (uid {uid})" if name == ENGINE else name  # what the engine does by itself bears its name
