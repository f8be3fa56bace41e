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
_PERCENT_U = re.compile("%u([0-9A-Fa-f]{4})")
"""What JavaScript's `escape` writes."""
_QUOTED_PRINTABLE = re.compile(
    r"=[0-9A-F]{2}(?:(?:=\r?\n)?=[0-9A-F]{2}){2,}+|=[89A-F][0-9A-F](?:=\r?\n)?=[89AB][0-9A-F]"
)
"""Characters beyond ASCII in e-mails, and three of any kind in a row. A single one of ASCII is left, as code is full of
`=20`, but where a text shows that it is an e-mail's."""
_SHOWS_QUOTED_PRINTABLE = re.compile(r"=3D|=\?[A-Za-z][\w-]{1,30}\?[Qq]\?|[^\s=]=\r?\n")
"""An equals sign, a header's beginning, and a line that goes on in the next one."""
_QUOTED_ASCII = re.compile(r"=([2-6][0-9A-F]|7[0-9A-E])|=\r?\n")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,32};?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_IGNORABLES = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point: soft hyphens, joiners, marks of direction, variation selectors."""
_IGNORABLE = re.compile(f"[{_IGNORABLES}]")
_STRIKES = "\u0305\u0332\u0333\u0334-\u0338\u033f\u20d2\u20d3\u20d8-\u20da\u20dd-\u20e0\u20e2-\u20eb"
"""Marks that strike a letter through, underline or enclose it, as in the digits of a keypad."""
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDDEN = re.compile(rf"([\U000e0020-\U000e007e])|([{_SELECTORS}]{{4,}})|\u202e([^\n\u202c-\u202e\u2066-\u2069]+)")
"""Text that people do not see, or see in another order, and models read: tag characters, bytes as variation selectors,
and what is shown from right to left."""
_HIDDEN_GAP = 8
"""Characters that may stand between two signs of one hidden text."""
_APART = "\0"
"""Stands between what is shown and what is hidden. No number goes on over it, as one does over a line end."""
_NEGATIVE = {
    **{first + i: "123456789"[i] for first in (0x2776, 0x24F5, 0x2780, 0x278A) for i in range(9)},
    0x24FF: "0",
    **{first + i: chr(ord("A") + i) for first in (0x1F150, 0x1F170) for i in range(26)},
}
"""Digits and letters on dark circles and squares, and digits in circles without serifs, which NFKC leaves."""
_DARK = "\u24f5-\u24fd\u24ff\u2776-\u277e\u2780-\u2788\u278a-\u2792\U0001f150-\U0001f169\U0001f170-\U0001f189"
_ON_DARK = re.compile(f"[{_DARK}]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]{0,32}[A-Za-z]")
"""Colours of terminals, which stand within a word that a search has found."""
_STRUCK = re.compile(f"[{_STRIKES}]")
_LOOKALIKES = {
    ord(foreign): letter
    for letter, lookalikes in {
        "A": "\u0391\u0410",
        "B": "\u0392\u0412",
        "C": "\u0421",
        "E": "\u0395\u0415",
        "H": "\u0397\u041d",
        "I": "\u0399\u0406",
        "J": "\u0408",
        "K": "\u039a\u041a",
        "M": "\u039c\u041c",
        "N": "\u039d",
        "O": "\u039f\u041e\u0555",
        "P": "\u03a1\u0420",
        "S": "\u0405\u054f",
        "T": "\u03a4\u0422",
        "W": "\u051c",
        "X": "\u03a7\u0425",
        "Y": "\u03a5\u0423",
        "Z": "\u0396",
        "a": "\u0251\u03b1\u0430\u1d00",
        "b": "\u0299",
        "c": "\u0441\u1d04",
        "d": "\u0501\u1d05",
        "e": "\u0435\u04bd\u1d07",
        "f": "\ua730",
        "g": "\u0261\u0262\u0581",
        "h": "\u029c\u04bb\u0570",
        "i": "\u0269\u026a\u03b9\u0456",
        "j": "\u03f3\u0458\u1d0a",
        "k": "\u03ba\u1d0b",
        "l": "\u029f\u04cf",
        "m": "\u1d0d",
        "n": "\u0274\u0578",
        "o": "\u03bf\u03c3\u043e\u0585\u1d0f",
        "p": "\u03c1\u0440\u1d18",
        "q": "\u051b",
        "r": "\u0280\u0433\u1d26",
        "s": "\u0455\ua731",
        "t": "\u03c4\u0442\u1d1b",
        "u": "\u03c5\u057d\u1d1c",
        "v": "\u03bd\u0475\u1d20",
        "w": "\u03c9\u0461\u051d\u1d21",
        "x": "\u03c7\u0445",
        "y": "\u028f\u03b3\u0443\u04af",
        "z": "\u1d22",
    }.items()
    for foreign in lookalikes
}
"""Cyrillic, Greek, Armenian and phonetic letters, and small capitals, that look like letters of the Latin alphabet."""
_FOREIGN = "\u0250-\u02af\u0370-\u058f"
_SMALL_CAPITALS = "\u1d00-\u1d26\ua730\ua731"
_MAY_BE_MIXED = re.compile(f"[{_FOREIGN}{_SMALL_CAPITALS}]")
_MIXED = re.compile(rf"[A-Za-z][^\W\d_]{{0,64}}?[{_FOREIGN}]|[{_FOREIGN}][^\W\d_]{{0,64}}?[A-Za-z]|[{_SMALL_CAPITALS}]")
_WORD = re.compile(r"[^\W\d_]+")
_DASHES = "\u2010-\u2015\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d"
_DASH = re.compile(f"[{_DASHES}]")
_SPACES = "\u0085\u1680\u2028\u2029\u2800\ufff9-\ufffc"
"""What separates words though it is no white space to `re`, or shows nothing."""
_SPACE = re.compile(f"[{_SPACES}]")
_SINGLE_QUOTES = "\u2018-\u201b\u2032\u02bc"
_SINGLE_QUOTE = re.compile(f"[{_SINGLE_QUOTES}]")
_DOUBLE_QUOTES = "\u201c-\u201f\u2033\u00ab\u00bb"
_DOUBLE_QUOTE = re.compile(f"[{_DOUBLE_QUOTES}]")
_REPLACED = re.compile(f"[{_IGNORABLES}{_STRIKES}{_DARK}{_DASHES}{_SPACES}{_SINGLE_QUOTES}{_DOUBLE_QUOTES}]")
"""All that `neat` replaces, but foreign digits and what NFKC replaces."""
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
_SPACED_LETTERS = re.compile(r"(?<!\w)(?:(?:\w ){3,}\w|(?:\w\.){2,}\w)(?!\w)")
_SPACE_WITHIN = re.compile(rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])")
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{65,}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def unescaped_once(text: str) -> str:
    """Return the text of JSON with the escapes of its strings undone, as a parser does."""
    if "\\" not in text:
        return text
    once = _joined_surrogates(_ONE_LEVEL.sub(_once, text))
    return _TERMINAL.sub("", once) if "\x1b" in once else once


def _once(match: re.Match[str]) -> str:
    code, control, plain = match.groups()
    if code is not None:
        return chr(int(code, 16))
    return _CONTROLS[control] if control is not None else str(plain)


def decoded(text: str) -> str:
    """Return the text with escapes of JSON, of any depth, HTML entities, percent-encoding and quoted-printable
    undone."""
    for _ in range(_ROUNDS):
        before = text
        if "\\" in text:
            text = _joined_surrogates(_ESCAPE.sub(_unescaped, text))
        if "%" in text:
            text = _PERCENT.sub(_unquoted, text)
            if "%u" in text:
                text = _joined_surrogates(_PERCENT_U.sub(lambda code: chr(int(code[1], 16)), text))
        if "=" in text:
            text = _QUOTED_PRINTABLE.sub(_unquoted_printable, text)
            if _SHOWS_QUOTED_PRINTABLE.search(text) is not None:
                text = _QUOTED_ASCII.sub(lambda code: chr(int(code[1], 16)) if code[1] else "", text)
        if "&" in text:
            text = _ENTITY.sub(_entity, text)
        if text == before:
            break
    return _TERMINAL.sub("", text) if "\x1b" in text else text


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


def _unquoted_printable(match: re.Match[str]) -> str:
    return _of_bytes(bytes.fromhex("".join(match.group().replace("=", "").split())))


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
    # Most languages write nothing of it, and the searches take a fraction of the replacements' time.
    if (
        _REPLACED.search(text) is None
        and _FOREIGN_DIGIT.search(text) is None
        and unicodedata.is_normalized("NFKC", text)
    ):
        return text
    text = _ON_DARK.sub(lambda sign: _NEGATIVE[ord(sign[0])], _with_hidden(text))
    text = unicodedata.normalize("NFKC", _STRUCK.sub("", _IGNORABLE.sub("", text)))
    text = _SPACE.sub(" ", _DASH.sub("-", _IGNORABLE.sub("", text)))
    text = _DOUBLE_QUOTE.sub('"', _SINGLE_QUOTE.sub("'", text))
    return _FOREIGN_DIGIT.sub(_ascii_digit, text)


def _with_hidden(text: str) -> str:
    """Return the text, and after it what is hidden in it. Signs that stand close by are one hidden text."""
    hidden, end = list[str](), -1
    for match in _HIDDEN.finditer(text):
        tag, selectors, shown_backwards = match.groups()
        if tag is not None:
            reading = chr(ord(tag) - 0xE0000)
        elif selectors is not None:
            octets = bytes([ord(c) - 0xFE00 if c <= "\ufe0f" else ord(c) - 0xE0100 + 16 for c in selectors])
            reading = octets.decode(errors="replace")
        else:
            reading = shown_backwards[::-1]
        hidden.append(reading if match.start() - end < _HIDDEN_GAP else _APART + reading)
        end = match.end()
    return text + _APART + "".join(hidden) if hidden else text


def unmixed(text: str) -> str:
    """Return a neat text with Latin letters in words that mix them with lookalikes of other alphabets: `pаssword` with
    a Cyrillic `а`. Words of one alphabet stay as they are."""
    if text.isascii() or _MAY_BE_MIXED.search(text) is None or _MIXED.search(text) is None:
        return text
    return _WORD.sub(_in_latin, text)


def _in_latin(match: re.Match[str]) -> str:
    word = match.group()
    return word if word.isascii() or _MIXED.search(word) is None else word.translate(_LOOKALIKES)


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
    `pass**word**`, `P A S S W O R D`, `S.S.N.`"""
    if "\n" in text:
        text = _BROKEN_WORD.sub("", text)
    text = _SPACED_LETTERS.sub(_without_spaces, _MARKUP.sub("", text))
    return text if text.isascii() else _SPACE_WITHIN.sub("", text)


def _without_spaces(match: re.Match[str]) -> str:
    return match.group().replace(" ", "").replace(".", "")


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
