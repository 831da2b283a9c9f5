"""What one check of the smart host came to."""

import asyncio
from collections.abc import Sequence

from engine.delivery.relayer import ManagedRelayer


class Check:
    """What one check_state opened. `completed` returns when all of it has ended.

    `ends` are the times, as seconds since 1970, at which ends what kept mail from going when it was looked at: some may
    be over by now, and then it is to be looked at again.
    """

    def __init__(
        self, relayers: Sequence[ManagedRelayer], tasks: Sequence["asyncio.Task[None]"], ends: Sequence[float] = ()
    ) -> None:
        self.relayers = tuple(relayers)
        self.ends = tuple(ends)
        self._tasks = tuple(tasks)

    async def completed(self) -> None:
        """Wait until every connection this check opened has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)
