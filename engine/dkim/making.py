"""New keys: made, written where nobody else may read them, and what is to be done with them."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.base.files import put
from engine.base.permission import why_not
from engine.dkim.keys import Algorithm, Key, KeyProblem, read_key
from engine.dkim.records import zone_lines
from engine.settings import names
from engine.settings.settings import DkimKey

RSA_BITS = 2048  # RFC 8301 3.2 wants so many; a record with more does not fit everywhere

Made = tuple[DkimKey, Key]


def wanted(kind: str, selector: str = "") -> list[tuple[str, Algorithm]]:
    """The selectors and algorithms of "rsa2048", "ed25519" or "both"; of both, each selector ends in its algorithm.

    Without a selector it is the day: the next keys, some day, are called otherwise. Raises ValueError.
    """
    algorithms: tuple[Algorithm, ...] = ("rsa", "ed25519")
    name = selector or f"{datetime.now(UTC):%Y%m%d}"
    is_full = bool(selector) and kind != "both"
    return [
        (names.selector(name if is_full else f"{name}-{algorithm}"), algorithm)
        for algorithm in algorithms
        if kind == "both" or kind.startswith(algorithm)
    ]


def make(
    domain: str, selectors: Sequence[tuple[str, Algorithm]], folder: Path, owner: tuple[int, int] | None
) -> list[Made]:
    """Make keys of a domain, one for each selector, in files of mode 0600 in a folder that is made where there is none.

    Nothing that is there is overwritten. `owner` is whom they are given to, by user and group; None: they stay the
    writer's. Raises ValueError for what is no domain, KeyProblem.
    """
    domain = names.signing_domain(domain)
    settings = [
        (DkimKey(domain=domain, selector=selector, key=folder / f"{domain}.{selector}.pem"), algorithm)
        for selector, algorithm in selectors
    ]
    for setting, _ in settings:
        if os.path.lexists(setting.key):
            raise KeyProblem(f"{setting.key} is there already; choose another selector, or another folder")
    _make_folder(folder, owner)
    return [_made(setting, algorithm, owner) for setting, algorithm in settings]


def told(made: Sequence[Made]) -> Iterator[str]:
    """What was made and what is to be done, in lines."""
    domain = made[0][0].domain
    for setting, key in made:
        yield f"{setting.key}: a new key ({key.algorithm})"
    yield from ("", f"1. Put this into the DNS of {domain}:", "")
    for _, key in made:
        yield from zone_lines(key)
    yield from ("", "2. Put this into the settings:", "")
    for setting, _ in made:
        yield "[[dkim]]"
        yield f'domain = "{setting.domain}"'
        yield f'selector = "{setting.selector}"'
        yield f'key = "{setting.key}"'
        yield ""
    yield f"3. When `smarthost dkim check {domain}` finds the keys in the DNS, start the engine anew."


def _make_folder(folder: Path, owner: tuple[int, int] | None) -> None:
    try:
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, *owner)
    except FileExistsError:
        if not folder.is_dir():
            raise KeyProblem(f"{folder} is no folder; write the path of one") from None
    except OSError as error:
        raise KeyProblem(why_not(error, folder.parent, "written to")) from error


def _made(setting: DkimKey, algorithm: Algorithm, owner: tuple[int, int] | None) -> Made:
    private = Ed25519PrivateKey.generate() if algorithm == "ed25519" else rsa.generate_private_key(65_537, RSA_BITS)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        put(setting.key, pem, owner=owner, is_new=True)
    except FileExistsError as error:
        raise KeyProblem(f"{setting.key} is there already") from error
    except OSError as error:
        raise KeyProblem(why_not(error, setting.key.parent, "written to")) from error
    return setting, read_key(setting)
