"""The suppression list, as operators see and change it: a part at a time, each change bounded and with who made it."""

from engine.base.address import Address, AddressError, parse_path
from engine.base.plural import plural
from engine.base.text import clean
from engine.control import requests
from engine.control.relay import Relay
from engine.control.requests import NOTE, Missing, Wrong
from engine.model.event import ENGINE
from engine.model.suppression import (
    LATEST,
    LONGEST_REPLY,
    Entering,
    Entry,
    Suppress,
    Suppressed,
    Suppressions,
    Unsuppress,
    key_of,
)


class SuppressionList:
    """Answers and changes. Raises Wrong for what cannot be asked, Missing where an address is not on it, QueueError."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def window(self, match: str, after: str, limit: int) -> Suppressions:
        """Those that have `match` in their address, in the order of these, behind `after`."""
        return await self._relay.queue.suppression.window(match, after, limit)

    async def enter(self, ask: Suppress, by: str) -> Entering:
        """Enter addresses, all of them or none."""
        rules = self._relay.settings.suppression
        entries: dict[str, Suppressed] = {}
        for place, entry in enumerate(ask.entries):
            entered = self._entered(entry, by, f"entries[{place}]" if len(ask.entries) > 1 else "")
            entries[entered.address] = entered
        found = await self._relay.queue.suppression.enter(
            list(entries.values()), by, clean(ask.source.strip(), NOTE), rules.most
        )
        if not found.has_room:
            what = f"the list has room for {rules.most:,} addresses, and operators have entered as many"
            raise Wrong(what, where="entries", allowed="take some off first, or set suppression.most", status=409)
        if any(entered.is_automatic for entered in entries.values()):  # what came by itself gives way
            await self._relay.queue.suppression.trim(rules.most)
        if len(entries) == 1:
            (only,) = entries.values()
            text = f"{only.address} is {'on' if found.new else 'changed on'} the list: no new mail to it is taken"
        else:
            text = f"{plural(len(entries), 'address', 'addresses')}: {found.new:,} new, {found.changed:,} changed"
        if not rules.enabled:
            text += "; but suppression.enabled is false, and nobody is refused"
        return Entering(text=text, new=found.new, changed=found.changed)

    async def remove(self, ask: Unsuppress, by: str) -> Entering:
        """Take an address off the list."""
        key = key_of(str(_address(ask.address, "address")))
        if await self._relay.queue.suppression.remove(key, by) is None:
            raise Missing(f"{key} is not on the list", where="address")
        return Entering(text=f"{key} is off the list: mail to it is taken again", changed=1)

    def _entered(self, entry: Entry, by: str, at: str) -> Suppressed:
        """What is asked for, as it is entered. Raises Wrong."""
        now, dot = self._relay.clock.now(), f"{at}." if at else ""
        key = key_of(str(_address(entry.address, f"{dot}address")))
        if key in self._relay.settings.own_postmasters:
            what = f"{key} looks after this relay, and is never refused"
            raise Wrong(what, where=f"{dot}address", allowed="any other address")
        since = now if entry.since is None else entry.since
        if not 0 <= since <= now + requests.LONGEST:  # NaN fails here, too
            raise Wrong("this is no time in the past", where=f"{dot}since", allowed="seconds since 1970")
        since = min(since, now)
        if entry.until is not None and not now < entry.until <= LATEST:
            raise Wrong("its time is over, or is none", where=f"{dot}until", allowed="a time to come, or none")
        given = clean(entry.by.strip(), NOTE)
        return Suppressed(
            address=key,
            since=since,
            until=entry.until if entry.until is not None or given != ENGINE else now + self._keep,
            by=given or by,
            reply=clean(entry.reply.strip(), LONGEST_REPLY),
            note=requests.note(entry.note),
        )

    @property
    def _keep(self) -> float:
        return self._relay.settings.suppression.keep


def _address(text: str, where: str) -> Address:
    try:
        return parse_path(text.strip())
    except AddressError as error:
        raise Wrong(str(error), where=where, allowed="an address such as bob@example.org") from error
