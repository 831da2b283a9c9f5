"""What `smarthost doctor` finds: of each thing that mail needs, whether it is as it should be, and what to do."""

from typing import Literal

from msgspec import Struct

Result = Literal["ok", "warn", "bad", "skipped"]
"""How it is: as it should be; such that some hosts may not take mail; such that mail does not go, or many hosts do not
take it; not looked at."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at: its `name` in a word or two, how it is, and what was seen.

    `todo` says what to do about it, "" where nothing is to be done. Of what was not looked at `text` says why.
    """

    name: str
    result: Result
    text: str
    todo: str = ""

    @property
    def line(self) -> str:
        """What was seen and what to do, in a sentence."""
        return f"{self.text}; {self.todo}" if self.todo else self.text


class Asked(Struct, frozen=True, kw_only=True):
    """What somebody tells the doctor that the settings do not say.

    `addresses`: from where connections go out, as others see them; () for what this machine knows of itself. `domains`
    are those of senders. `probes` are domains whose exchanges are connected to; () for some large ones.
    """

    addresses: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
