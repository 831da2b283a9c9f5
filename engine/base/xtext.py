"""xtext: any text as what may stand in a parameter of SMTP (RFC 3461 4), and internationalised addresses in ASCII."""

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", re.ASCII)
_HEX = re.compile(r"\+([0-9A-F]{2})", re.ASCII)


def decoded(text: str) -> str:
    """Give what an xtext stands for. Raises ValueError unless it is one, and all of it printable ASCII."""
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext (RFC 3461 4)")
    plain = _HEX.sub(lambda code: chr(int(code[1], 16)), text)
    if not (plain.isascii() and plain.isprintable()):
        raise ValueError("holds what is not printable")
    return plain


def utf8_address(address: str) -> str:
    """Give an internationalised address in ASCII (RFC 6533 3, utf-8-addr-xtext)."""
    return "".join(char if char.isascii() and char not in "\\+=" else f"\\x{{{ord(char):X}}}" for char in address)
