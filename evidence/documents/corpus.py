"""A grammar of documents: every report is composed of choices, not taken from a list of layouts.

`document(seed, vocabulary)` draws the language and house, prefix and length of the patient's number, where number and
eye stand, the arrangement of the values (lines, one line, several to a line, table, CSV, two eyes in columns or in
sections, prose), their order, separators, units, decimal mark, what else is printed, and whether a scanner damaged the
page. The truth always is what the clean page says. It is a pure function of its arguments.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evidence.documents.words import VALUES, Language, Vocabulary
from spillway_server.demo_model.noise import STRENGTHS, corrupt

RANGES: Mapping[str, tuple[float, float, int]] = {
    "AL": (20.5, 30.0, 2), "K1": (39.0, 45.0, 2), "K2": (0.1, 3.5, 2), "ACD": (2.1, 4.4, 2), "LT": (3.2, 5.4, 2),
    "WTW": (10.6, 13.2, 1),
}  # fmt: skip
"""Least and most value and decimals; K2 is what it has more than K1."""
UNITS: Mapping[str, str] = {"AL": "mm", "K1": "D", "K2": "D", "ACD": "mm", "LT": "mm", "WTW": "mm"}
ARRANGEMENTS = (
    ("lines", 30), ("one line", 14), ("pairs", 10), ("table", 8), ("csv", 7), ("columns", 12), ("sections", 3),
    ("leaders", 5), ("below", 4), ("prose", 7),
)  # fmt: skip
OTHER_KINDS, DAMAGED, RARE_LANGUAGES, MISSING = 0.05, 0.05, 0.05, 0.04
USUAL = ("en", "de", "fr", "es", "it")
BLANKS = ("---", "n/a", "-.--", "--")


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A document with its truth; None if it is no biometry, or does not say which of two eyes is asked for.

    `kind` is biometry or another kind, `arrangement`, `language` and `damaged` say how it was made.
    """

    text: str
    truth: Mapping[str, object] | None
    kind: str
    arrangement: str
    language: str
    damaged: bool


def document(seed: int, words: Vocabulary) -> CorpusDocument:
    """Compose the document of a seed."""
    rng = random.Random(f"corpus/{seed}")
    if rng.random() < OTHER_KINDS:
        return other_kind(rng, words)
    language = _language(rng, words)
    page = _Page(rng, words, language)
    names, weights = zip(*ARRANGEMENTS, strict=True)
    arrangement = rng.choices(names, weights)[0]
    if arrangement == "prose" and language.code != "en":
        arrangement = "lines"
    text = page.compose(arrangement)
    damaged = rng.random() < DAMAGED
    if damaged:
        text = corrupt(text, STRENGTHS["light"], rng)
    return CorpusDocument(
        text,
        page.truth(arrangement),
        kind="biometry",
        arrangement=arrangement,
        language=language.code,
        damaged=damaged,
    )


def _language(rng: random.Random, words: Vocabulary) -> Language:
    rare = [language for language in words.languages if language.code not in USUAL]
    if rare and rng.random() < RARE_LANGUAGES:
        return rng.choice(rare)
    usual = [language for language in words.languages if language.code in USUAL]
    return rng.choices(usual, [8 if language.code == "en" else len(language.houses) for language in usual])[0]


def other_kind(rng: random.Random, words: Vocabulary) -> CorpusDocument:
    """Compose a page of another kind than biometry, such as an invoice."""
    kind = rng.choice(sorted(words.kinds))
    values = {
        "number": rng.randint(1000, 99999), "id": _number(rng, words), "count": rng.randint(2, 9),
        "a": rng.randint(10, 30),
        "b": rng.randint(100, 400), "c": rng.randint(1, 6), "d": rng.randint(50, 70), "digit": rng.randint(0, 9),
        "axis": rng.randint(1, 180),
    }  # fmt: skip
    text = rng.choice(words.kinds[kind]).format_map(values)
    return CorpusDocument(text, None, kind=kind, arrangement="form", language="", damaged=False)


def _number(rng: random.Random, words: Vocabulary) -> str:
    digits = rng.choice((4, 5, 6, 6, 7, 8))
    return rng.choice(words.prefixes) + str(rng.randint(10 ** (digits - 1), 10**digits - 1))


class _Page:
    """One report under composition."""

    def __init__(self, rng: random.Random, words: Vocabulary, language: Language) -> None:
        self._rng, self._words, self._language = rng, words, language
        self._house = dict(zip(VALUES, rng.choice(language.houses), strict=True))
        self._id = _number(rng, words)
        self._eye = rng.choice(("OD", "OS"))
        self._eyes = {eye: self._drawn() for eye in ("OD", "OS")}
        self._comma = language.comma and rng.random() < 0.8
        self._blank = rng.choice(BLANKS)
        self._separator = rng.choice((": ", ":", " ", " = ", "=", "\t", "  ", " - ", " : "))
        self._unit = rng.choice(("behind", "behind", "bracket", "none"))
        self._form = rng.randrange(min(len(language.right), len(language.left)))
        self._asked = rng.random() < 0.8

    def _drawn(self) -> dict[str, float | None]:
        rng = self._rng
        values: dict[str, float | None] = {}
        for name, (low, high, decimals) in RANGES.items():
            drawn = rng.uniform(low, high) + (values["K1"] or 43.0 if name == "K2" else 0.0)
            values[name] = round(drawn, decimals)
        missing = [name for name in ("ACD", "LT", "WTW") if rng.random() < MISSING]
        return {name: None if name in missing else value for name, value in values.items()}

    def truth(self, arrangement: str) -> dict[str, object] | None:
        """Return what a reader should find; None where the page does not say which eye is asked for."""
        if arrangement in ("columns", "sections") and not self._asked:
            return None
        return {"id": self._id, "eye": self._eye, **self._eyes[self._eye]}

    def compose(self, arrangement: str) -> str:
        """Return the page's text."""
        arrange = {
            "lines": self._lines, "one line": self._one_line, "pairs": self._pairs, "table": self._table,
            "csv": self._csv,
            "columns": self._columns, "sections": self._sections, "leaders": self._leaders, "below": self._below,
            "prose": self._prose,
        }[arrangement]  # fmt: skip
        return arrange()

    def _numeral(self, name: str, eye: str) -> str:
        value = self._eyes[eye][name]
        if value is None:
            return self._blank
        text = f"{value:.{RANGES[name][2]}f}"
        return text.replace(".", ",") if self._comma else text

    def _side(self, eye: str) -> str:
        return (self._language.right if eye == "OD" else self._language.left)[self._form]

    def _shuffled(self) -> list[str]:
        names = list(VALUES)
        if self._rng.random() < 0.6:
            self._rng.shuffle(names)
        return names

    def _label(self, name: str) -> str:
        return f"{self._house[name]} [{UNITS[name]}]" if self._unit == "bracket" else self._house[name]

    def _entry(self, name: str, eye: str, separator: str) -> str:
        unit = f" {UNITS[name]}" if self._unit == "behind" and self._eyes[eye][name] is not None else ""
        return f"{self._label(name)}{separator}{self._numeral(name, eye)}{unit}"

    def _head(self) -> list[str]:
        """Return title, number and eye, in one of their usual places."""
        rng = self._rng
        title = rng.choice(self._words.titles)
        date = rng.choice(("2026-03-14", "14.03.2026", "14/03/2026", ""))
        separator = rng.choice((": ", " ", " = ", ": "))
        number = f"{rng.choice(self._language.ids)}{separator}{self._id}"
        eye = f"{rng.choice(self._language.eyes)}{separator}{self._side(self._eye)}"
        return rng.choice(
            (
                [f"{title}  {date}".rstrip(), number, eye],
                [title, f"{number}   {eye}"],
                [f"{title} {date}".rstrip(), f"{eye}; {number}"],
                [f"{number} | {eye} | {date}".rstrip(" |"), title],
            )
        )

    def _others(self) -> list[str]:
        rng = self._rng
        chosen = rng.sample(self._language.others, rng.randint(0, min(3, len(self._language.others))))
        values = {
            "cct": rng.randint(480, 610), "snr": rng.randint(20, 250), "digit": rng.randint(0, 9),
            "pupil": f"{rng.uniform(2.5, 7):.1f}", "power": f"{rng.randint(20, 56) / 2:.1f}",
            "axis": rng.randint(1, 180),
        }  # fmt: skip
        return [text.format_map(values) for text in chosen]

    def _mixed(self, lines: Sequence[str]) -> list[str]:
        """Return the lines with the page's other lines in between."""
        mixed = list(lines)
        for other in self._others():
            mixed.insert(self._rng.randint(0, len(mixed)), other)
        return mixed

    def _lines(self) -> str:
        bullet = self._rng.choice(("", "", "", "- ", "* ", "• "))
        entries = [bullet + self._entry(name, self._eye, self._separator) for name in self._shuffled()]
        return "\n".join((*self._head(), *self._mixed(entries)))

    def _one_line(self) -> str:
        separator = self._rng.choice((": ", "=", " ", " = "))
        between = self._rng.choice((" | ", "; ", ", ", "  ", " / "))
        between = "; " if self._comma and between == ", " else between
        return "\n".join((*self._head(), between.join(self._entry(n, self._eye, separator) for n in self._shuffled())))

    def _pairs(self) -> str:
        entries = [self._entry(name, self._eye, self._rng.choice((": ", " "))) for name in self._shuffled()]
        gap = self._rng.choice(("   ", "\t", "  "))
        rows = [gap.join(entries[at : at + 2]) for at in range(0, len(entries), 2)]
        return "\n".join((*self._head(), *self._mixed(rows)))

    def _table(self) -> str:
        names, delimiter = self._shuffled(), self._rng.choice((" | ", "\t", "   "))
        split = self._rng.choice((3, 6))
        rows: list[str] = []
        for at in range(0, len(names), split):
            part = names[at : at + split]
            rows.append(delimiter.join(self._label(name) for name in part))
            rows.append(delimiter.join(self._numeral(name, self._eye) for name in part))
        return "\n".join((*self._head(), *rows))

    def _csv(self) -> str:
        delimiter = ";" if self._comma else self._rng.choice((";", ",", "\t"))
        names = self._shuffled()
        heads = [self._rng.choice(self._language.ids), self._rng.choice(self._language.eyes)]
        cells = [self._id, self._side(self._eye)]
        heads += [f"{self._house[name]}" for name in names]
        cells += [self._numeral(name, self._eye) for name in names]
        return f"{delimiter.join(heads)}\n{delimiter.join(cells)}"

    def _columns(self) -> str:
        order = self._rng.choice((("OD", "OS"), ("OD", "OS"), ("OS", "OD")))
        heads = [self._side(eye) for eye in order]
        width = max(self._rng.choice((8, 12)), *(len(head) + 2 for head in heads))
        rows = ["".ljust(24) + "".join(head.rjust(width) for head in heads)]
        for name in self._shuffled():
            numerals = "".join(self._numeral(name, eye).rjust(width) for eye in order)
            rows.append(self._label(name).ljust(24) + numerals)
        return "\n".join((*self._two_eyed_head(), *rows))

    def _two_eyed_head(self) -> list[str]:
        number = f"{self._rng.choice(self._language.ids)}: {self._id}"
        asked = [f"{self._language.eyes[0]}: {self._side(self._eye)}"] if self._asked else []
        return [self._rng.choice(self._words.titles), number, *asked]

    def _sections(self) -> str:
        lines = self._two_eyed_head()
        for eye in ("OD", "OS"):
            lines.append(self._side(eye))
            lines.extend(self._entry(name, eye, self._separator) for name in VALUES)
        return "\n".join(lines)

    def _leaders(self) -> str:
        entries = [f"{self._label(n).ljust(28, '.')} {self._numeral(n, self._eye)}" for n in self._shuffled()]
        return "\n".join((*self._head(), *self._mixed(entries)))

    def _below(self) -> str:
        entries = [f"{self._label(n)}\n{self._numeral(n, self._eye)} {UNITS[n]}" for n in self._shuffled()]
        return "\n".join((*self._head(), *entries))

    def _prose(self) -> str:
        values = {name: self._numeral(name, self._eye) for name in VALUES}
        sentence = self._rng.choice(self._words.sentences).format_map(values)
        side = "right" if self._eye == "OD" else "left"
        return f"{self._rng.choice(self._words.titles)}\nPatient {self._id}, {side} eye.\n{sentence}"
