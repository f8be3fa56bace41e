"""Canaries: words and valid numbers that must not leave, and the spellings in which honest clients send them."""

from __future__ import annotations

import base64
import html
import json
import quopri
import string
import unicodedata
from collections.abc import Callable
from random import Random
from urllib.parse import quote

from spillway_router.privacy.payment import passes_luhn

KEYWORDS = (
    "Kestrelnote",
    "medical record",
    "médical",
    "contraseña",
    "Größenklasse",
    "пароль",
    "密码本",
    "パスワード",
    "비밀번호",
    "driver's license",
    "project blue heron",
    "İstanbul-Akte",
)
_ALPHANUMERIC = string.ascii_letters + string.digits

Spelling = Callable[[str, Random], str]


def _digits(random: Random, count: int) -> str:
    return "".join(random.choice(string.digits) for _ in range(count))


def _token(random: Random, count: int) -> str:
    return "".join(random.choice(_ALPHANUMERIC) for _ in range(count))


def _card(random: Random) -> str:
    first, length, groups = random.choice(
        (("4", 16, 4), ("52", 16, 4), ("37", 15, 0), ("6011", 16, 4), ("2223", 16, 4))
    )
    head = first + _digits(random, length - len(first) - 1)
    number = head + next(d for d in string.digits if passes_luhn(head + d))
    separator = random.choice(("", " ", "-")) if groups else ""
    return separator.join(number[i : i + 4] for i in range(0, length, 4)) if groups else number


def _iban(random: Random) -> str:
    account = _digits(random, 18)
    check = 98 - int(account + "131400") % 97
    number = f"DE{check:02}{account}"
    return number if random.random() < 0.5 else " ".join(number[i : i + 4] for i in range(0, 22, 4))


def _ssn(random: Random) -> str:
    return f"{random.randint(1, 665):03}-{random.randint(1, 99):02}-{random.randint(1, 9999):04}"


def _dni(random: Random) -> str:
    number = random.randint(10_000_000, 99_999_999)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _email(random: Random) -> str:
    name = "".join(random.choice(string.ascii_lowercase) for _ in range(6))
    return f"{name}.{random.randint(1, 99)}@{random.choice(('example.org', 'mail.example.com', 'firma.de'))}"


def _phone(random: Random) -> str:
    return random.choice(("+49 30 {}", "+44 20 {}", "+33{}1")).format(_digits(random, 7) + str(random.randint(10, 99)))


def _jwt(random: Random) -> str:
    return f"eyJ{_token(random, 17)}.eyJ{_token(random, 40)}.{_token(random, 43)}"


NUMBERS: dict[str, Callable[[Random], str]] = {
    "card": _card,
    "iban": _iban,
    "us_ssn": _ssn,
    "es_dni": _dni,
    "email": _email,
    "phone": _phone,
    "jwt": _jwt,
    "github_token": lambda random: f"ghp_{_token(random, 36)}",
    "ai_key": lambda random: f"sk-proj-{_token(random, 48)}",
    "groq_key": lambda random: f"gsk_{_token(random, 52)}",
    "aws_key": lambda random: "AKIA" + "".join(random.choice(string.ascii_uppercase + "234567") for _ in range(16)),
    "private_key": lambda random: f"-----BEGIN {random.choice(('', 'RSA ', 'EC '))}PRIVATE KEY-----",
    "fixed": lambda random: random.choice(
        (
            "131052-308T",
            "390.533.447-05",
            "11010519491231002X",
            "RCCMNL83S18D969H",
            "756.9217.0769.85",
            "AB123456C",
            "85.07.30-033.28",
            "PESEL 44051401359",
            "BSN 111222333",
            "Aadhaar 2341 2341 2346",
            "880320-0016",
        )
    ),
}


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _wrapped(text: str, random: Random) -> str:
    if " " in text:
        return text.replace(" ", random.choice(("\n", "\r\n", "  ", "\t", "\u00a0", "\n> ", "\u3000")), 1)
    at = random.randint(1, len(text) - 1)
    return text[:at] + random.choice(("-\n", "\u2010\r\n", "\u00ad", "\u200b")) + text[at:]


def _emphasized(text: str, random: Random) -> str:
    at = random.randint(1, len(text) - 1)
    mark = random.choice(("**", "~~", "`"))
    return f"{text[:at]}{mark}{text[at:]}{mark}"


def _invisible(text: str, random: Random) -> str:
    at = random.randint(1, len(text) - 1)
    return text[:at] + random.choice("\u200b\u00ad\u2060\ufeff\u200d") + text[at:]


def _within(start: str, end: str) -> Spelling:
    def spelled(text: str, random: Random) -> str:
        at = random.randint(1, len(text) - 1)
        return f"{text[:at]}{start}{text[at:]}{end}"

    return spelled


def _keypad(text: str, _: Random) -> str:
    return "".join(f"{c}\ufe0f\u20e3" if c in string.digits else c for c in text)


def _tags(text: str, _: Random) -> str:
    return "".join(chr(0xE0000 + ord(c)) for c in text) if text.isascii() else text


def _selectors(text: str, _: Random) -> str:
    return "".join(chr(0xFE00 + octet) if octet < 16 else chr(0xE0100 + octet - 16) for octet in text.encode())


_SENTENCE = "It says {}, and nothing else."
"""What makes an encoded text long enough to be told from an identifier."""


def _hexadecimal(text: str, random: Random) -> str:
    octets = _SENTENCE.format(text).encode()
    return random.choice(
        (octets.hex(), octets.hex().upper(), f"0x{octets.hex()}", octets.hex()[:60] + "\n" + octets.hex()[60:])
    )


def _quoted_printable(text: str, random: Random) -> str:
    if random.random() < 0.5:
        return "".join(f"={octet:02X}" for octet in text.encode())
    at = random.randint(1, len(text) - 1)
    first, rest = (quopri.encodestring(part.encode()).decode() for part in (text[:at], text[at:]))
    return f"Query: a=3Db\n{first}=\n{rest}"


ANY_SPELLINGS: dict[str, Spelling] = {
    "as it is": lambda text, _: text,
    "JSON": lambda text, _: json.dumps({"note": text}),
    "JSON in JSON": lambda text, _: json.dumps([json.dumps({"note": text})]),
    "JSON in JSON in JSON": lambda text, _: json.dumps(json.dumps(json.dumps({"note": text}))),
    "escapes": lambda text, _: "".join(f"\\u{ord(c):04x}" for c in text),
    "full width": lambda text, _: _wide(text),
    "invisible characters": _invisible,
    "percent-encoding": lambda text, _: quote(text),
    "entities": lambda text, _: "".join(f"&#{ord(c)};" for c in text),
    "HTML": lambda text, _: f"<td>{html.escape(text)}</td>",
    "decomposed": lambda text, _: unicodedata.normalize("NFD", text),
    "colours of a terminal": _within("\x1b[01;31m", "\x1b[0m"),
    "inline markup": _within("<b>", "</b>"),
    "marked by a search": _within('<mark class="hit">', "</mark>"),
    "emoji of a keypad": _keypad,
    "tag characters": _tags,
    "variation selectors": _selectors,
    "from right to left": lambda text, _: f"\u202e{text[::-1]}\u202c",
    "hexadecimal": _hexadecimal,
    "Base32": lambda text, _: base64.b32encode(_SENTENCE.format(text).encode()).decode(),
    "base64": lambda text, _: base64.b64encode(_SENTENCE.format(text).encode()).decode(),
    "quoted-printable": _quoted_printable,
    "escape() of JavaScript": lambda text, _: "".join(f"%u{ord(c):04x}" for c in text),
}
"""Spellings of words and numbers alike."""
WORD_SPELLINGS: dict[str, Spelling] = {
    **ANY_SPELLINGS,
    "upper case": lambda text, _: text.upper(),
    "lower case": lambda text, _: text.lower(),
    "wrapped": _wrapped,
    "emphasized": _emphasized,
    "hyphenated": lambda text, _: text.replace(" ", "-"),
    "identifier": lambda text, _: f"my_{text.replace(' ', '_')}_2",
}
