"""Why mail cannot come in."""


class IntakeError(Exception):
    """Mail cannot come in this way; the text names the address or the folder, and why."""


class Unfit(Exception):
    """This file cannot be taken; the text says what is wrong, where, and what is allowed."""


class NotYet(Exception):
    """Somebody is at work on this file: it is looked at again."""


class Refused(Exception):
    """This message is not taken: the reply to its client, and for the events the kind of refusal and its detail."""

    def __init__(self, reply: str, why: str, detail: str = "") -> None:
        super().__init__(reply)
        self.reply = reply
        self.why = why
        self.detail = detail
