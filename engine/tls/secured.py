"""How a session was secured, in the one wording that log, transcript and screens share."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from engine.tls import chains

_HOUR = 3600.0  # seconds for which what was found of a chain is believed: certificates expire


class Secured(Struct, frozen=True):
    """The version of TLS as OpenSSL names it ("TLSv1.3", "" in clear text), and whether the certificate is trusted.

    Trusted is one that is right by its name and by an authority, or by DANE, demanded or not. Any other keeps
    eavesdroppers out and proves nothing of who the peer is (RFC 7435).
    """

    version: str = ""
    trusted: bool = False

    @property
    def line(self) -> str:
        """ "TLS 1.3, certificate trusted", "TLS 1.0, certificate not trusted" or "clear text"."""
        if not self.version:
            return "clear text"
        number = self.version.removeprefix("TLSv")
        return f"TLS {number if '.' in number else number + '.0'}, certificate {'' if self.trusted else 'not '}trusted"


def is_trusted(chain: Sequence[bytes], host: str, ca_file: Path | None) -> bool:
    """Whether the chain a host sent (DER, its own first) is right by the authorities, where nothing depends on it.

    Where these cannot be read, none is.
    """
    try:
        return _is_trusted(tuple(chain), host, ca_file, int(time.time() // _HOUR))
    except OSError:
        return False


@functools.lru_cache(maxsize=256)  # chains of a few KiB: a busy relay meets the same ones again and again
def _is_trusted(chain: tuple[bytes, ...], host: str, ca_file: Path | None, hour: int) -> bool:  # noqa: ARG001
    return not chains.by_authorities(chain, host, ca_file)
