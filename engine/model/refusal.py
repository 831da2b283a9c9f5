"""One refusal at the door, whole: what the mail log has of each, and the events of some."""

from msgspec import Struct


class Refusal(Struct, frozen=True, kw_only=True):
    """Mail of `peer` was refused. `why` names the kind of refusal, `detail` what varies in it, `reply` the reply.

    All but `why` may be strangers' text, as it came.
    """

    peer: str
    why: str
    detail: str = ""
    sender: str = ""
    recipient: str = ""
    reply: str = ""

    @property
    def address(self) -> str:
        """The client's address, or ""."""
        way, _, address = self.peer.partition(" ")
        return address.partition(" as ")[0] if way in ("smtp", "http") else ""
