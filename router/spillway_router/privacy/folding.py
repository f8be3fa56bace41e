"""The forms of a text that keywords and patterns are compared with.

One word reaches the router in many spellings: JSON within JSON, decomposed accents, line wraps, soft hyphens,
full-width letters. Every form here is made of keywords as well, so that both sides of a comparison are spelled alike.
All work is linear in the length of the text.
"""

from __future__ import annotations

import html
import re
import unicodedata

_ROUNDS = 3
"""Encodings inside one another that are undone, such as an HTML entity in a JSON string in a URL. Escapes of JSON in
JSON count as one, however deep they are."""
_ESCAPE = re.compile(
    r"\\++(?:u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})"
    r"|(x[0-9A-Fa-f]{2}(?:\\++x[0-9A-Fa-f]{2})*+)|([nrtfbv])|([\"'/]))?"
)
_ONE_LEVEL = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|([nrtfb])|(["\\/]))')
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": " ", "v": " "}
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})++")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,32};?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point: soft hyphens, joiners, marks of direction, variation selectors."""
_DASH = re.compile("[\u2010-\u2015\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d]")
_SPACE = re.compile("[\u0085\u1680\u2028\u2029]")
_SINGLE_QUOTE = re.compile("[\u2018-\u201b\u2032\u02bc]")
_DOUBLE_QUOTE = re.compile("[\u201c-\u201f\u2033\u00ab\u00bb]")
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")
_LINE_LEAD = re.compile(r"\n[ \t]*(?:[>#*|]|//)[>#*|/ \t]*")
"""What begins each line of a quotation, a comment, a list or a table."""
_SEPARATOR = re.compile(r"[\s_-]+")
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Letters of scripts that put no spaces between words, or attach particles to them: Thai, Lao, Tibetan, Burmese, Khmer,
Japanese, Chinese, Korean. Written as the inside of a character class."""
_BROKEN_WORD = re.compile(r"(?<=\w)[-=][ \t]*\r?\n[ \t>#*|]*+")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}+>|[*~`]+")
_SPACED_LETTERS = re.compile(r"(?<!\w)(?:\w ){3,}\w(?!\w)")
_SPACE_WITHIN = re.compile(rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])")
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{65,}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def unescaped_once(text: str) -> str:
    """Return the text of JSON with the escapes of its strings undone, as a parser does."""
    return _joined_surrogates(_ONE_LEVEL.sub(_once, text)) if "\\" in text else text


def _once(match: re.Match[str]) -> str:
    code, control, plain = match.groups()
    if code is not None:
        return chr(int(code, 16))
    return _CONTROLS[control] if control is not None else str(plain)


def decoded(text: str) -> str:
    """Return the text with escapes of JSON, of any depth, HTML entities and percent-encoding undone."""
    for _ in range(_ROUNDS):
        before = text
        if "\\" in text:
            text = _joined_surrogates(_ESCAPE.sub(_unescaped, text))
        if "%" in text:
            text = _PERCENT.sub(_unquoted, text)
        if "&" in text:
            text = _ENTITY.sub(_entity, text)
        if text == before:
            break
    return text


def _unescaped(match: re.Match[str]) -> str:
    braced, short, long, octets, control, plain = match.groups()
    if octets is not None:
        return _of_bytes(bytes.fromhex(octets.replace("\\", "").replace("x", "")))
    if control is not None:
        return _CONTROLS[control]
    if plain is not None:
        return str(plain)
    code = braced or short or long
    if code is None:
        return "\\"
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else "\ufffd"


def _unquoted(match: re.Match[str]) -> str:
    return _of_bytes(bytes.fromhex(match.group().replace("%", "")))


def _of_bytes(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _entity(match: re.Match[str]) -> str:
    return html.unescape(match.group())


def _joined_surrogates(text: str) -> str:
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def neat(text: str) -> str:
    """Return the text in NFKC, without ignorable characters, with ASCII's digits, hyphens and quotes."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text))
    text = _SPACE.sub(" ", _DASH.sub("-", _IGNORABLE.sub("", text)))
    text = _DOUBLE_QUOTE.sub('"', _SINGLE_QUOTE.sub("'", text))
    return _FOREIGN_DIGIT.sub(_ascii_digit, text)


def _ascii_digit(match: re.Match[str]) -> str:
    return str(unicodedata.decimal(match.group()))


def words(text: str) -> str:
    """Return a neat text in lower case, with one space for all that separates words: white space, hyphens, underscores,
    and the marks at the beginning of quoted lines."""
    if "\n" in text:
        text = _LINE_LEAD.sub("\n", text)
    return _SEPARATOR.sub(" ", folded(text))


def tightened(text: str) -> str:
    """Return a neat text with words whole again that line ends, markup or wide setting broke: `confi-\\ndential`,
    `pass**word**`, `P A S S W O R D`."""
    if "\n" in text:
        text = _BROKEN_WORD.sub("", text)
    text = _SPACED_LETTERS.sub(_without_spaces, _MARKUP.sub("", text))
    return text if text.isascii() else _SPACE_WITHIN.sub("", text)


def _without_spaces(match: re.Match[str]) -> str:
    return match.group().replace(" ", "")


def split_humps(text: str) -> str:
    """Return a neat text with a space between the words of identifiers such as `userSsn`. Long tokens, such as base64,
    are left out: they have such words by chance."""
    return _HUMP.sub(" ", _LONG_TOKEN.sub(" ", text))


def folded(text: str) -> str:
    """Return a neat text in lower case, with `ss` for `ß` and the like."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text.casefold())
    # Turkish has four letters i; the others have two.
    return text.replace("i\u0307", "i").replace("\u0131", "i")
