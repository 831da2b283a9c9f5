"""Why a request is not done, as whoever asked is told."""

from engine.intake.errors import Refused, Unfit


class Problem(Exception):
    """The request is refused: the HTTP status, what is wrong, where, and what is allowed instead.

    `retry` is in how many seconds to come again, 0 where that is of no use. `why` names the kind for the events, ""
    where nobody needs to be told; `detail` is what varies in it.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        where: str = "",
        allowed: str = "",
        retry: int = 0,
        why: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.where = where
        self.allowed = allowed
        self.retry = retry
        self.why = why
        self.detail = detail

    @classmethod
    def of_content(cls, error: Unfit) -> "Problem":
        """Of a message that cannot be taken: its text is "where: what; what is allowed"."""
        text = str(error)
        where, _, rest = text.partition(": ")
        what, _, allowed = rest.partition("; ")
        return cls(400, what, where=where, allowed=allowed, why="not fit to be taken", detail=text)

    @classmethod
    def of_refusal(cls, error: Refused, *, status: int, retry: int) -> "Problem":
        """Of what would be refused over SMTP."""
        return cls(status, error.reply.text, retry=retry, why=error.why, detail=error.detail)
