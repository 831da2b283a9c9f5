"""What time it is in the database, for whoever has no queue there."""

import asyncio
import time
from pathlib import Path

import pytest

from engine.queue.errors import QueueBusy
from engine.queue.postgres.there import time_there
from tests import postgres
from tests.serving import free_port

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")


async def test_the_time_is_asked_of_a_database_that_has_no_queue(tmp_path: Path) -> None:
    server = await asyncio.to_thread(postgres.cluster)
    there = await time_there(await server.database(tmp_path), "")
    assert there == pytest.approx(time.time(), abs=10.0)  # the same machine, which may be busy


async def test_a_database_that_is_not_there_is_told_of() -> None:
    with pytest.raises(QueueBusy, match="the database cannot be reached"):
        await time_there(f"postgresql://relay@127.0.0.1:{free_port()}/relay", "s3cret")
