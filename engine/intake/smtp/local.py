"""Who comes over a Unix socket: a user of this machine, whom the kernel names."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from engine.base.local_user import as_peer, login_of, uid_behind
from engine.intake.smtp.connection import AHEAD
from engine.intake.smtp.meeting import Meeting

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for a user's name, which a directory on the network may have


class LocalUser(Meeting):
    """A connection over a Unix socket, until it is known what its user is called: he is met as `unix uid 1000 (ann)`.

    A name is asked for in `names`, for PATIENCE seconds at the most; then, or where there is none, his number will do.
    """

    def __init__(
        self,
        waiting: dict[Meeting, None],
        met: Callable[[asyncio.Transport, str, bytes], None],
        failed: Callable[[str], None],
        names: Executor,
    ) -> None:
        super().__init__(waiting, met, failed)
        self._names = names

    def begin(self) -> None:
        """Ask who it is."""
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    def heard(self) -> None:
        """Nothing is to be said yet. What is belongs to the conversation, which will make of it what it makes of it."""
        if len(self.come) > AHEAD:
            self.give_up(f"more than {AHEAD} octets came before the greeting")

    def end(self) -> None:
        """It is known, or does not matter any more."""
        if self._asking is not asyncio.current_task():
            self._asking.cancel()

    async def _ask(self) -> None:
        assert self.transport is not None
        uid = uid_behind(self.transport.get_extra_info("socket").fileno())
        if uid is None:
            self.give_up("the kernel does not say whose it is")
            return
        name = ""
        try:
            async with asyncio.timeout(PATIENCE):
                name = await asyncio.get_running_loop().run_in_executor(self._names, login_of, uid)
        except TimeoutError:
            log.warning("what the user with uid %d is called is not known after %g s", uid, PATIENCE)
        self.meet(as_peer(uid, name))
