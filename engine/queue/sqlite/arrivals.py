"""What comes in: messages, events that come with no change of the queue, and who has logged in to bring mail."""

from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue import contract
from engine.queue.bounds import LOGINS_KEPT
from engine.queue.columns import storable
from engine.queue.contract import KnownLogin
from engine.queue.sqlite import mail
from engine.queue.sqlite.database import Role, Snapshot, read, written
from engine.queue.sqlite.writer import Transaction


class Arrivals(Role, contract.Arrivals):
    """A message and all that belongs to it is written in one transaction (see engine.queue.sqlite.mail)."""

    async def enqueue(self, message: NewMessage) -> int:
        database = self.database
        return await database.do(lambda tx: mail.enqueue(tx, message, database.terms), weight=len(message.content))

    @written
    def forget_key(self, tx: Transaction, key: str) -> None:
        tx.execute("DELETE FROM taken_key WHERE key = ?", (storable(key),))

    @written
    def forget_keys(self, tx: Transaction, beginning: str, below: int) -> None:
        tx.execute(
            "DELETE FROM taken_key WHERE substr(key, 1, ?) = ? AND message < ?", (len(beginning), beginning, below)
        )

    @written
    def record(self, tx: Transaction, *events: Event) -> None:
        tx.record(*events)

    @written
    def remember_login(self, tx: Transaction, login: str, address: str) -> None:
        tx.execute(
            "INSERT OR REPLACE INTO known_login (login, address, at) VALUES (?, ?, ?)",
            (storable(login), storable(address), tx.now),
        )
        tx.execute(
            "DELETE FROM known_login WHERE (login, address) IN "
            "(SELECT login, address FROM known_login ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (LOGINS_KEPT,),
        )

    @read
    def known_logins(self, snapshot: Snapshot) -> tuple[KnownLogin, ...]:
        rows = snapshot.connection.execute("SELECT login, address, at FROM known_login ORDER BY at")
        return tuple(KnownLogin(login=login, address=address, at=at) for login, address, at in rows)
