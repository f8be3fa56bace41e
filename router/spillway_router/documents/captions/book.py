"""The captions of a schema's fields, as data: those of a shipped book, and those that the schema itself gives.

A book is one YAML file beside this module:

    name: biometry
    scope: eye                     # the field that tells columns, rows and sections apart
    fields:
      AL: {captions: [[AL, axial length], [Achslänge]], units: {mm: [14, 40]}}
      K1: {captions: [...], instead: [[R1]], ...}     # `instead` counts where no caption of `captions` stands
      WTW: {captions: [...], decimals: 1}             # printed with one decimal while others have two
      eye: {kind: choice, captions: [...], choices: {OD: [right, rechts]}, short: {OD: [R]}}
      id: {kind: identifier, captions: [...]}
    kind: {threshold: 0.5}         # the least share of captioned fields with which a page is of this kind
    ordered: [[K1, K2, [flat]]]    # K1 is never above K2 where K1 stands under one of these words
    others: [[CCT, SNR]]           # captions of what the schema does not ask for
    parts, composed                # captions that are composed of parts: captions/composition.py

A JSON schema uses it with `x-captions: biometry`, by the names of its fields. For every other field its name, its
`title` and its `x-synonyms` (a list) are its captions, `x-unit` its unit, and `minimum` and `maximum` its range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import orjson
import yaml

from spillway_router.documents.captions.composition import Composer, composer_of
from spillway_router.documents.captions.tokens import tokens_of

FieldKind = Literal["number", "identifier", "choice", "date", "boolean", "text"]
OTHER = ""
_LONGEST_TITLE_WORDS = 5
_MAX_DEPTH = 16
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class CaptionedField:
    """One field: what kind of value it has, its captions, units with their ranges, and choices by folded words.

    `whole`: it is an integer. `decimals`: how many it is printed with at least, None for as many as the other numbers.

    """

    name: str
    kind: FieldKind
    captions: tuple[str, ...]
    instead: tuple[str, ...] = ()
    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption as folded words. `field` is OTHER for what no field asks for; `tier` 0 comes before 1."""

    words: tuple[str, ...]
    field: str
    tier: int
    choice: str = ""


@dataclass(frozen=True, slots=True)
class CaptionBook:
    """The captions of a schema. `certified` is the least share of captioned fields of this kind of document, None if
    the schema has no book, and nothing is known of other kinds. `answers`: somebody wrote captions for this schema, so
    a reading by them may be an answer; captions that are only its fields' names give a second opinion."""

    fields: Mapping[str, CaptionedField]
    starts: Mapping[str, tuple[Caption, ...]]
    scope: str = ""
    ordered: tuple[tuple[str, str, frozenset[str]], ...] = ()
    certified: float | None = None
    answers: bool = False
    composer: Composer = field(default_factory=Composer)


@lru_cache(maxsize=64)
def book_of_text(json_schema: bytes) -> CaptionBook:
    """Return the captions of a schema in JSON; the last ones are kept."""
    return book_of(orjson.loads(json_schema))


def words_of(caption: str) -> tuple[str, ...]:
    """Return the folded words of a caption."""
    return tuple(token.folded for token in tokens_of(caption) if token.kind in ("word", "number")) or (caption,)


@lru_cache(maxsize=8)
def shipped_book(name: str) -> Mapping[str, Any] | None:
    """Return the content of a shipped book, None if there is none with this name."""
    file = files(__package__).joinpath(f"{name}.yaml") if name.isidentifier() else None
    if file is None or not file.is_file():
        return None
    content: Mapping[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return content


def book_of(json_schema: Mapping[str, Any]) -> CaptionBook:
    """Return the captions of a schema. Raises nothing: what can't be understood has no captions."""
    name = json_schema.get("x-captions")
    shipped = shipped_book(name) if isinstance(name, str) else None
    shared: Mapping[str, Any] = {} if shipped is None else shipped["fields"]
    fields: dict[str, CaptionedField] = {}
    for leaf, node in leaves(json_schema):
        fields.setdefault(leaf, _field(leaf, node, shared.get(leaf, {})))
    scope = "" if shipped is None else str(shipped.get("scope", ""))
    if scope and scope in shared and scope not in fields:
        fields[scope] = _field(scope, {"type": "string"}, shared[scope])
    others = [] if shipped is None else [caption for row in shipped.get("others", []) for caption in row]
    left_out = [] if shipped is None else [shared[n] for n in shared if n not in fields]
    others += [caption for entry in left_out for caption in _rows(entry.get("captions"))]
    ordered = [] if shipped is None else shipped.get("ordered", [])
    return CaptionBook(
        fields=fields,
        starts=_starts(fields, others),
        scope=scope,
        ordered=tuple((low, high, frozenset(words)) for low, high, words in ordered),
        answers=shipped is not None or any("x-synonyms" in node for _, node in leaves(json_schema)),
        certified=None if shipped is None else float(shipped.get("kind", {}).get("threshold", 0.5)),
        composer=Composer() if shipped is None else composer_of(shipped, fields),
    )


def leaves(node: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and schema of every property that is no object and no array of objects, however deep."""
    properties = node.get("properties") if isinstance(node, Mapping) else None
    if not isinstance(properties, Mapping) or depth > _MAX_DEPTH:
        return
    for name, inner in properties.items():
        if not isinstance(inner, Mapping):
            continue
        items = inner.get("items")
        if isinstance(inner.get("properties"), Mapping):
            yield from leaves(inner, depth + 1)
        elif isinstance(items, Mapping):
            yield from leaves(items, depth + 1)
        elif inner.get("type") != "array":
            yield name, inner


def kind_of(node: Mapping[str, Any]) -> FieldKind:
    """Return what kind of value a schema asks for."""
    kinds = _kinds(node)
    if isinstance(node.get("enum"), list):
        return "choice"
    if "boolean" in kinds:
        return "boolean"
    if kinds & {"number", "integer"}:
        return "number"
    if node.get("format") in ("date", "date-time"):
        return "date"
    return "identifier" if node.get("x-kind") == "identifier" else "text"


def _kinds(node: Mapping[str, Any]) -> set[str]:
    kind = node.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else set()
    for name in ("anyOf", "oneOf"):
        branches = node.get(name)
        if isinstance(branches, list):
            kinds |= {kind for branch in branches if isinstance(branch, Mapping) for kind in _kinds(branch)}
    return kinds


def _field(name: str, node: Mapping[str, Any], shared: Mapping[str, Any]) -> CaptionedField:
    own = [_CAMEL.sub(" ", name)]
    title, synonyms, unit = node.get("title"), node.get("x-synonyms"), node.get("x-unit")
    if isinstance(title, str) and len(title.split()) <= _LONGEST_TITLE_WORDS:
        own.append(title)
    if isinstance(synonyms, list):
        own.extend(word for word in synonyms if isinstance(word, str))
    units = {unit_name: (float(low), float(high)) for unit_name, (low, high) in shared.get("units", {}).items()}
    if isinstance(unit, str):
        low, high = node.get("minimum"), node.get("maximum")
        lowest = float(low) if isinstance(low, int | float) else float("-inf")
        units[unit] = (lowest, float(high) if isinstance(high, int | float) else float("inf"))
    enum = [word for word in node.get("enum", []) if isinstance(word, str)] if "enum" in node else []
    choices = {word: value for value, words in shared.get("choices", {}).items() for word in words}
    choices.update({word: word for word in enum})
    kind = shared.get("kind") or kind_of(node)
    return CaptionedField(
        name=name,
        kind=kind,
        captions=(*own, *_rows(shared.get("captions"))),
        instead=tuple(_rows(shared.get("instead"))),
        units=units,
        choices={" ".join(words_of(word)): value for word, value in choices.items()},
        short={" ".join(words_of(word)): value for value, words in shared.get("short", {}).items() for word in words},
        decimals=shared.get("decimals"),
        whole="integer" in _kinds(node) and "number" not in _kinds(node),
    )


def _rows(rows: Any) -> list[str]:
    return [str(caption) for row in rows or [] for caption in row]


def _starts(fields: Mapping[str, CaptionedField], others: Sequence[str]) -> dict[str, tuple[Caption, ...]]:
    """Return the captions by their first word, longest first. A caption of two fields belongs to none of them."""
    by_words: dict[tuple[str, ...], Caption] = {}

    def add(text: str, field: str, tier: int, choice: str = "") -> None:
        words = words_of(text)
        for variant in {words, _apart(words)}:
            other = by_words.get(variant)
            if other is None or (other.field == field and tier < other.tier):
                by_words[variant] = Caption(variant, field, tier, choice)

    for entry in fields.values():
        for tier, texts in enumerate((entry.captions, entry.instead)):
            for text in texts:
                add(text, entry.name, tier)
    for entry in fields.values():
        for word, value in entry.choices.items():
            add(word, entry.name, 0, value)
    for text in others:
        add(text, OTHER, 0)
    starts: dict[str, list[Caption]] = {}
    for caption in by_words.values():
        starts.setdefault(caption.words[0], []).append(caption)
    return {word: tuple(sorted(rows, key=lambda c: -len(c.words))) for word, rows in starts.items()}


def _apart(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words with a digit at a word's end set apart: k1 is also written k 1."""
    parts: list[str] = []
    for word in words:
        match = re.fullmatch(r"([a-z]+)(\d)", word)
        parts.extend(match.groups() if match else (word,))
    return tuple(parts)
