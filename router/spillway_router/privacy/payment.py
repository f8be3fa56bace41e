"""Payment cards and bank accounts."""

from __future__ import annotations

from bisect import bisect_right

from spillway_router.privacy.patterns import GAP, Pattern, compact, digits_of, number

_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (220000, 220499, frozenset({16, 17, 18, 19})),  # Mir
    (222100, 272099, frozenset({16})),  # Mastercard
    (300000, 305999, frozenset({14, 16})),  # Diners Club
    (309500, 309599, frozenset({14, 16})),
    (340000, 349999, frozenset({15})),  # American Express
    (352800, 358999, frozenset({16, 17, 18, 19})),  # JCB
    (360000, 369999, frozenset({14, 16})),  # Diners Club
    (370000, 379999, frozenset({15})),  # American Express
    (380000, 399999, frozenset({14, 16})),  # Diners Club
    (400000, 499999, frozenset({16, 19})),  # Visa
    (500000, 509999, frozenset({16, 17, 18, 19})),  # Maestro, Elo, Verve
    (510000, 559999, frozenset({16})),  # Mastercard
    (560000, 589999, frozenset({16, 17, 18, 19})),  # Maestro
    (601100, 601199, frozenset({16, 19})),  # Discover
    (606282, 606282, frozenset({16})),  # Hipercard
    (620000, 629999, frozenset({16, 17, 18, 19})),  # UnionPay
    (630000, 639999, frozenset({16, 17, 18, 19})),  # Maestro, Elo
    (644000, 659999, frozenset({16, 19})),  # Discover, RuPay, Elo
    (670000, 679999, frozenset({16, 17, 18, 19})),  # Maestro
    (817200, 817202, frozenset({16})),  # RuPay
)
"""First and last six digits of each issuer's range, and the lengths of its card numbers."""
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip


def passes_luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of Luhn's formula."""
    values = bytes(map(int, digits))
    return (sum(values[-1::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0


_DOUBLED = bytes(sum(divmod(2 * digit, 10)) for digit in range(10)).ljust(256)
"""The sum of the digits of twice a digit."""


def is_card(text: str) -> bool:
    """Return whether a match is a card number: an issuer's range, a length that it uses, a valid check digit."""
    digits = digits_of(text.partition("/")[0])
    if len(digits) > 16 and not text[-4:].isdigit() and _is_card(digits[:16]):
        return True  # a security code or a date follows the number
    return _is_card(digits)


def _is_card(digits: str) -> bool:
    head = int(digits[:6])
    at = bisect_right(_FIRST_DIGITS, head) - 1
    if at < 0:
        return False
    _, last, lengths = _ISSUERS[at]
    return head <= last and len(digits) in lengths and passes_luhn(digits) and len(set(digits)) > 1


_FIRST_DIGITS = tuple(first for first, _, _ in _ISSUERS)


def is_iban(text: str) -> bool:
    """Return whether a match begins with an account number: a country, its length, valid check digits."""
    code = compact(text)
    length = _IBAN_LENGTHS.get(code[:2], 0)
    if not length or len(code) < length:
        return False
    code = code[:length]
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


_EXPIRY = r"/(?:0[1-9]|1[0-2])/?(?:20)?\d\d(?:/\d{3,4})?"
"""The month and year until which a card is valid, and its security code, behind its number."""
PAYMENT: tuple[Pattern, ...] = (
    number(
        "card",
        rf"[2-8]\d{{3}}{GAP}\d{{4}}{GAP}\d{{4}}{GAP}\d{{4}}(?:{GAP}\d{{1,3}})?"
        rf"|3\d{{3}}{GAP}\d{{6}}{GAP}\d{{4,5}}"
        rf"|[2-8]\d{{3}}{GAP}\d{{4}}{GAP}\d{{4}}{GAP}\d{{4}}{_EXPIRY}|3\d{{3}}{GAP}\d{{6}}{GAP}\d{{4,5}}{_EXPIRY}"
        r"|[2-8]\d{3}[._+]\d{4}[._+]\d{4}[._+]\d{4}",  # a name has underscores, the query of an address has plus signs
        is_card,
    ),
    number("iban", rf"[A-Z]{{2}}{GAP}\d{{2}}(?:{GAP}[A-Z0-9]){{11,30}}", is_iban),
)
