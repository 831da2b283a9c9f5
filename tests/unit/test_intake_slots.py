"""Large messages are dealt with a few at a time, and clients take turns."""

import asyncio

from engine.intake.smtp.slots import Slots
from tests.waiting import PATIENCE


async def test_clients_take_turns_however_many_messages_each_has() -> None:
    slots, served = Slots(2), list[str]()

    async def one(client: str) -> None:
        await slots.take(client)
        served.append(client)

    tasks = [asyncio.create_task(one(client)) for client in (*"aaaaaa", *"bb", "c")]
    for _ in range(12):
        await asyncio.sleep(0)
        if len(served) >= 2:
            slots.leave()
    await asyncio.gather(*tasks)
    assert "".join(served) == "aa" + "abcab" + "aa"


async def test_a_desk_is_free_again_whenever_somebody_stops_waiting() -> None:
    slots = Slots(1)
    await slots.take("a")
    gone, given, last = (asyncio.create_task(slots.take(client)) for client in "aab")
    await asyncio.sleep(0)
    gone.cancel()
    slots.leave()  # which is given to the second, in the moment in which that one stops waiting, too
    given.cancel()
    await asyncio.wait({gone, given, last})
    assert (gone.cancelled(), given.cancelled(), last.cancelled()) == (True, True, False)
    slots.leave()
    async with asyncio.timeout(PATIENCE):
        await slots.take("c")
    assert not slots._waiting
