"""Made-up mail, as varied as real mail: senders, languages, sizes, and now and then a subject that means harm."""

import base64
import email.utils
import random
from collections.abc import Mapping

from msgspec import Struct

from engine.sandbox.world import SENDERS, UNKNOWN_USERS

_SENDERS = ("billing", "orders", "newsletter", "support", "anna.keller", "j.okafor", "noreply", "events")
_USERS = (
    "ada", "ben.ortiz", "carla", "d.nakamura", "elif", "f.moreau", "grace", "hugo", "ines", "jonas.w",
    "kim", "lena", "mateo", "nadia", "o.svensson", "priya", "rosa", "sam+lists", "tom", "yuki", *UNKNOWN_USERS,
)  # fmt: skip
_SUBJECTS = (
    "Your invoice {n}",
    "Order {n} is on its way",
    "Minutes of the meeting, and what is still open",
    "Re: lunch on Thursday?",
    "Password reset for account {n}",
    "Weekly report {n}",
    "Rechnung {n} für Ihre Bestellung",
    "Einladung zum Frühlingsfest — bitte antworten",
    "Votre réservation n° {n} est confirmée",
    "Réunion déplacée à jeudi, même salle",
    "Su pedido {n} ha llegado: ¡gracias!",
    "Присланы документы № {n}",
    "Η παραγγελία σας {n}",  # noqa: RUF001 - Greek, not Latin
    "ご注文 {n} の確認",
    "会议改到星期四下午三点",
    "주문 {n} 발송 안내",
    "فاتورتك رقم {n}",
    "Zaproszenie na warsztaty — środa, godz. 18",
    "🎉 {n} days of reading together",
)
_HOSTILE_SUBJECTS = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mRead me now",
    "Invoice \u202egnp.exe\u202c attached",
    "[@click=app.quit]press me[/] [bold red]{n}[/x]",
    "\x1b]8;;https://evil.example/\x1b\\your bank\x1b]8;;\x1b\\",
    "zero\u200bwidth\u2066 and \x9b31m C1 {n}",
    "\x1b]52;c;cm0gLXJmIH4=\x07copy that",
)
_SENTENCES = (
    "Thank you for your message; we have looked into it and everything is in order.",
    "Please find the details below, and tell us if something is missing.",
    "The goods left our house this morning and should reach you within three days.",
    "Wir danken für die Geduld und melden uns, sobald die Lieferung eingetroffen ist.",
    "Nous restons à votre disposition pour toute question à ce sujet.",
    "Nos vemos el jueves a las cinco, como siempre en el café de la esquina.",
    "Пожалуйста, подтвердите получение этого письма.",
    "ご不明な点がございましたら、お気軽にお問い合わせください。",
)
_HOSTILE_SHARE = 0.03
_SIZES = (1, 2, 4, 4, 8, 12, 20, 40)  # KiB


class Letter(Struct, frozen=True, kw_only=True):
    """One message and its envelope. `content` has CRLF line ends and may have 8-bit text."""

    sender: str
    recipients: tuple[str, ...]
    subject: str
    content: bytes


class Letters:
    """Writes letters to domains by their weight. The same `draw` gives the same letters."""

    def __init__(self, weights: Mapping[str, float], draw: random.Random | None = None) -> None:
        chosen = {domain: weight for domain, weight in weights.items() if weight > 0}
        if not chosen:
            raise ValueError("no domain has a weight above zero: there is nobody to write to")
        self._domains = list(chosen)
        self._weights = list(chosen.values())
        self._draw = draw or random.Random()
        self._number = 0

    def write(self) -> Letter:
        """The next letter: 1 to 40 KiB, to one, two or three recipients."""
        draw = self._draw
        self._number += 1
        sender = f"{draw.choice(_SENDERS)}@{SENDERS}"
        domains = draw.choices(self._domains, self._weights, k=draw.choice((1, 1, 1, 1, 2, 3)))
        recipients = tuple(dict.fromkeys(f"{draw.choice(_USERS)}@{domain}" for domain in domains))
        texts = _HOSTILE_SUBJECTS if draw.random() < _HOSTILE_SHARE else _SUBJECTS
        subject = draw.choice(texts).format(n=draw.randrange(1000, 100_000))
        return Letter(
            sender=sender, recipients=recipients, subject=subject, content=self._content(sender, recipients, subject)
        )

    def _content(self, sender: str, recipients: tuple[str, ...], subject: str) -> bytes:
        size = self._draw.choice(_SIZES) * 1024 - self._draw.randrange(500)
        header = (
            f"From: {sender.partition('@')[0].replace('.', ' ').title()} <{sender}>\r\n"
            f"To: {', '.join(recipients)}\r\n"
            f"Subject: {_encoded(subject)}\r\n"
            f"Date: {email.utils.formatdate()}\r\n"
            f"Message-ID: <{self._number}.{self._draw.getrandbits(48):x}@{SENDERS}>\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        )
        lines: list[bytes] = []
        length = len(header)
        while length < size:
            lines.append(self._draw.choice(_SENTENCES).encode() + b"\r\n")
            length += len(lines[-1])
        return header.encode() + b"".join(lines or [b"\r\n"])


def _encoded(subject: str) -> str:
    """The subject as it stands in a header: as it is, or in encoded words of at most 75 characters (RFC 2047 2)."""
    if subject.isascii() and subject.isprintable():
        return subject
    words = [subject[start : start + 10] for start in range(0, len(subject), 10)]
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word.encode()).decode()}?=" for word in words)
