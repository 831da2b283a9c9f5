"""What comes in: messages, events that come with no change of the queue, and who has logged in to bring mail."""

from functools import partial

from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue import contract
from engine.queue.bounds import LOGINS_KEPT
from engine.queue.contract import KnownLogin
from engine.queue.errors import QueueBusy
from engine.queue.postgres import mail
from engine.queue.postgres.database import Database, Role, read, written
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction


class Arrivals(Role, contract.Arrivals):
    """A message and all that belongs to it is written in one transaction (see engine.queue.postgres.mail)."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._enqueue = partial(mail.enqueue_all, terms=database.terms)

    async def enqueue(self, message: NewMessage) -> int:
        # Else a sender would wait for as long as the database may take to answer.
        if self.database.is_open and not self.database.node.left:
            raise QueueBusy("the database cannot be reached")
        return await self.database.do_together(self._enqueue, message, weight=len(message.content))

    @written
    async def forget_key(self, tx: Transaction, key: str) -> None:
        await tx.execute("DELETE FROM taken_key WHERE key = $1 AND node IN ($2, '')", storable(key), tx.node)

    @written
    async def forget_keys(self, tx: Transaction, beginning: str, below: int) -> None:
        await tx.execute(
            "DELETE FROM taken_key WHERE starts_with(key, $1) AND message < $2 AND node IN ($3, '')",
            beginning, below, tx.node,
        )  # fmt: skip

    @written
    async def record(self, tx: Transaction, *events: Event) -> None:
        tx.record(*events)

    @written
    async def remember_login(self, tx: Transaction, login: str, address: str) -> None:
        await tx.execute(
            "INSERT INTO known_login (login, address, at) VALUES ($1, $2, $3) "
            "ON CONFLICT (login, address) DO UPDATE SET at = excluded.at",
            storable(login),
            storable(address),
            tx.now,
        )
        await tx.execute(
            "DELETE FROM known_login WHERE (login, address) IN "
            "(SELECT login, address FROM known_login ORDER BY at DESC OFFSET $1)",
            LOGINS_KEPT,
        )

    @read
    async def known_logins(self, snapshot: Snapshot) -> tuple[KnownLogin, ...]:
        rows = await snapshot.fetch("SELECT login, address, at FROM known_login ORDER BY at")
        return tuple(KnownLogin(login=login, address=address, at=at) for login, address, at in rows)
