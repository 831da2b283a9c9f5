"""What a sender asks to be told of its mail: the parameters of MAIL and RCPT that RFC 3461 defines."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from engine.base import xtext
from engine.intake.smtp.command import SyntaxProblem
from engine.model.message import DsnRequest, Ret

OF_MAIL: Final = frozenset({"RET", "ENVID"})
OF_RCPT: Final = frozenset({"NOTIFY", "ORCPT"})

MAX_ENVID = 100  # characters, RFC 3461 4.4
MAX_ORCPT = 500  # characters, RFC 3461 4.2

_RETS: Final[Mapping[str, Ret]] = {"FULL": "FULL", "HDRS": "HDRS"}
_KINDS = ("SUCCESS", "FAILURE", "DELAY")
_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)

Parameters = Mapping[str, str | None]


class OfMail(NamedTuple):
    """Of the message: how much of it is to come back, and the sender's own name for it (xtext)."""

    ret: Ret = ""
    envid: str = ""


def of_mail(parameters: Parameters) -> OfMail:
    """Read RET and ENVID (RFC 3461 4.3 and 4.4). Raises SyntaxProblem."""
    ret: Ret = ""
    if "RET" in parameters:
        if (parameters["RET"] or "").upper() not in _RETS:
            raise SyntaxProblem("RET is FULL or HDRS")
        ret = _RETS[(parameters["RET"] or "").upper()]
    envid = parameters.get("ENVID", "") or ""
    try:
        plain = xtext.decoded(envid)
    except ValueError as error:
        raise SyntaxProblem(f"ENVID {error}") from error
    if ("ENVID" in parameters and not plain) or len(envid) > MAX_ENVID:
        raise SyntaxProblem(f"ENVID has 1 to {MAX_ENVID} characters")
    return OfMail(ret, envid)


def of_recipient(parameters: Parameters) -> DsnRequest:
    """Read NOTIFY and ORCPT (RFC 3461 4.1 and 4.2). Raises SyntaxProblem."""
    notify = ""
    if "NOTIFY" in parameters:
        asked = (parameters["NOTIFY"] or "").upper().split(",")
        if asked != ["NEVER"] and (not set(asked) <= set(_KINDS) or len(set(asked)) != len(asked)):
            raise SyntaxProblem("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY between commas")
        notify = ",".join(asked)
    orcpt = _orcpt(parameters["ORCPT"] or "") if "ORCPT" in parameters else ""
    return DsnRequest(notify=notify, orcpt=orcpt)


def _orcpt(written: str) -> str:
    """The type of an address and the address. One in UTF-8 is kept in its ASCII form, which passes everywhere."""
    kind, _, address = written.partition(";")
    if not address.isascii() and address.isprintable() and kind.lower() == "utf-8":
        address = "".join(char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in address)  # RFC 6533 3
    try:
        plain = xtext.decoded(address)
    except ValueError as error:
        raise SyntaxProblem(f"ORCPT {error}") from error
    if not _TYPE.fullmatch(kind) or not plain:
        raise SyntaxProblem("ORCPT is written type;address, such as rfc822;bob@example.org")
    if len(kind) + 1 + len(address) > MAX_ORCPT:
        raise SyntaxProblem(f"ORCPT has at most {MAX_ORCPT} characters")
    return f"{kind};{address}"
