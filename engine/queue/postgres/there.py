"""What time it is in the database, for whoever has no queue open there."""

from engine.queue.postgres.connection import Server, connect

_CLOSE_SECONDS = 5.0


async def time_there(dsn: str, password: str) -> float:
    """Seconds since 1970, by the database's clock. Raises QueueBusy where it cannot be reached."""
    connection = await connect(Server(dsn, password))
    try:
        return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    finally:
        await connection.close(timeout=_CLOSE_SECONDS)
