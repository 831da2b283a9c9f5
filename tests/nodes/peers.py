"""Those the mail is for: several domains, each with an exchange that takes everything and notes it in the books."""

import asyncio

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Action, Session, Temper
from engine.sandbox.internet import Internet
from tests.nodes.books import Books

DOMAINS = tuple(f"d{number}.example" for number in range(6))
_ENOUGH = 10  # messages that an exchange keeps: what came is in the books


class Noting(Temper):
    """Takes each message after so many seconds, and notes it at the moment it says so.

    It has taken it also where its answer is not heard any more: peers are not told of what their reply became.
    """

    def __init__(self, books: Books, seconds: float) -> None:
        self._books = books
        self._seconds = seconds

    async def reply(self, session: Session, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "content":
            await asyncio.sleep(self._seconds)
            for recipient in session.recipients:
                self._books.came(recipient, session.exchange.clock.now(), session.hello.partition(".")[0])
        return None


async def internet_of(books: Books, seconds: float) -> Internet:
    """An internet with these domains, not yet begun."""
    internet = Internet(clock=SystemClock(), keep_messages=_ENOUGH, keep_bytes=64 * 1024)
    await internet.start()
    for domain in DOMAINS:
        await internet.add(domain, mx=[(10, f"mx.{domain}", Noting(books, seconds))])
    return internet
