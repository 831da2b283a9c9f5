"""Who signs: the keys of each domain as their files have them now, and what becomes of mail that cannot be signed."""

import logging
from collections.abc import Container, Sequence
from pathlib import Path

from engine.base.clock import Clock
from engine.base.text import clean
from engine.dkim.keys import Key, KeyProblem, read_key
from engine.dkim.result import NOT_SIGNED, CannotSign, Signature
from engine.dkim.signature import Parts, Unsignable, signatures
from engine.settings import names
from engine.settings.kinds import Unsigned
from engine.settings.settings import DkimKey

log = logging.getLogger(__name__)

_UNREAD = "its keys are not read yet"

_Stamp = tuple[int, int, int]  # inode, size and time of change: a file that has others is another


class Signer:
    """Signs mail of the domains that have keys. `unsigned`: whether what cannot be signed goes without.

    All keys of a domain sign, or none. Nothing is read where mail is signed: `look` does that, at the start and then
    every few seconds. `trouble` is why mail of some domain cannot be signed, or "".
    """

    def __init__(self, keys: tuple[DkimKey, ...], unsigned: Unsigned, clock: Clock) -> None:
        self.trouble = ""
        self._settings = keys
        self._goes_without = unsigned == "send"
        self._clock = clock
        self._read: dict[str, tuple[_Stamp | None, Key | str]] = {}
        self._keys: dict[str, tuple[Key, ...] | str] = {one.domain: _UNREAD for one in keys}  # or why there are none

    @property
    def has_keys(self) -> bool:
        """Whether there is anything to sign with."""
        return bool(self._settings)

    def look(self) -> tuple[str, ...]:
        """Read the keys whose files have changed; give what is wrong, each problem with its setting in front.

        It may take as long as their file system does: for a thread. What a file held before counts no more.
        """
        found: dict[str, tuple[Key, ...] | str] = {}
        problems: list[str] = []
        for place, setting in enumerate(self._settings):
            key = self._key(setting)
            before = found.get(setting.domain, ())
            if isinstance(key, str):
                problems.append(f"dkim[{place}].key: {key}")
                found[setting.domain] = key
            elif not isinstance(before, str):
                found[setting.domain] = (*before, key)
        self._keys = found
        broken = [domain for domain, keys in found.items() if isinstance(keys, str)]
        self._tell(f"mail of {', '.join(broken)} {self._so}: {'; '.join(problems)}" if broken else "")
        return tuple(problems)

    def domain_of(self, author: str) -> str:
        """The domain that signs for an author's: that itself, or the nearest above it that has keys; "" for none."""
        return _nearest(author, self._keys)

    def sign(self, message: Parts, author: str) -> Signature:
        """Give the signatures of a message for the domain of its author; in any thread. Raises CannotSign."""
        domain = self.domain_of(author)
        if not domain:
            return NOT_SIGNED
        keys = self._keys[domain]
        if isinstance(keys, str):
            return self.cannot(keys)
        try:
            return Signature(signatures(message, keys, self._clock.now()))
        except Unsignable as error:
            return self.cannot(str(error), is_permanent=True)

    def cannot(self, why: str, *, is_permanent: bool = False) -> Signature:
        """What becomes of mail that should be signed and cannot be, for this reason. Raises CannotSign."""
        if not self._goes_without:
            raise CannotSign(why, is_permanent=is_permanent)
        return Signature(missing=why)

    @property
    def _so(self) -> str:
        return "goes unsigned" if self._goes_without else "is put off, since it cannot be signed"

    def _key(self, setting: DkimKey) -> Key | str:
        stamp = _stamp(setting.key)
        before, key = self._read.get(setting.record, (None, ""))
        if stamp is None or stamp != before:
            try:
                key = read_key(setting)
            except KeyProblem as error:
                key = str(error)
            self._read[setting.record] = (stamp, key)
        return key

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.log(logging.ERROR if trouble else logging.INFO, "%s", clean(trouble) or "all mail is signed again")
        self.trouble = trouble


def signing_for(author: str, keys: Sequence[DkimKey]) -> tuple[DkimKey, ...]:
    """The keys that sign for a domain. Raises ValueError for what is none."""
    domain = _nearest(names.host(author), {one.domain for one in keys})
    return tuple(one for one in keys if one.domain == domain)


def _nearest(author: str, domains: Container[str]) -> str:
    """The domain among these that is an author's, or else the nearest above it; "" where there is none."""
    domain = author
    while domain and domain not in domains:
        domain = domain.partition(".")[2]
    return domain


def _stamp(path: Path) -> _Stamp | None:
    """What tells a file from the one it was; None where it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
