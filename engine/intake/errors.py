"""Why mail cannot come in."""

from engine.intake.reply import Reply


class IntakeError(Exception):
    """Mail cannot come in this way; the text names the address or the folder, and why."""


class Unfit(Exception):
    """This file cannot be taken; the text says what is wrong, where, and what is allowed."""


class NotYet(Exception):
    """Somebody is at work on this file: it is looked at again."""


class Refused(Exception):
    """What a client wants is not done: the reply, and for the events the kind of refusal and its detail.

    `why` is "" where nobody needs to be told.
    """

    def __init__(self, reply: Reply, why: str = "", detail: str = "") -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.why = why
        self.detail = detail
