"""What may be shown on a terminal: hostile bytes become harmless, visible text.

Replies, subjects, addresses and names come from strangers. An ESC in them would steer the operator's terminal
(CSI, OSC 8 and 52, DCS), a bidi control would turn a line around, a surrogate would break the store.
"""

import unicodedata

# Cc: C0, DEL, C1. Cf: bidi and other invisible controls. Cs: surrogates, which no encoder takes. Co, Cn: no glyph
# to show. Zl, Zp: line breaks that are not "\n".
_UNSHOWABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _shown(char: str) -> str:
    if char == "\t":
        return " "
    if unicodedata.category(char) not in _UNSHOWABLE:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, carried by surrogateescape
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean(text: str, limit: int = 1000) -> str:
    """Give `text` as one line that no terminal can be steered by: controls are shown as escapes, breaks as spaces.

    `limit` is in characters of the result; what is longer ends in an ellipsis.
    """
    if len(text) <= limit and text.isprintable():  # nothing of the categories C and Z but the space
        return text
    # A hostile text may be megabytes: what is beyond the limit is never looked at.
    head = text[: limit + 1].replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    shown = head if head.isprintable() else "".join(map(_shown, head))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def clean_lines(text: str, lines: int = 200, limit: int = 1000) -> list[str]:
    """Give up to `lines` lines of `text`, each cleaned and at most `limit` characters long."""
    return [clean(line.removesuffix("\r"), limit) for line in text.split("\n", lines)[:lines]]
