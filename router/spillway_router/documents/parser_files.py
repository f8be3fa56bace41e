"""Parsers as they are declared: YAML files, checked, compiled. `load_parsers` gives those that ship and the user's own.

    name: iolmaster_en                  # unique
    schema: biometry                    # the schema whose values it gives
    applies_to: ['IOLMaster 700.*']     # at least one of these lines must stand in the text
    macros: {sep: '(?:: ?| = | )'}      # {sep} in a pattern stands for this
    fields:
      AL: {patterns: ['AL{sep}{value} mm  SNR {any}'], unit: mm, decimal: point, digits: 2, range: [20, 33]}
      eye: {patterns: ['Eye{sep}{value}'], choices: {OD (right): OD, OS (left): OS}}
      id: {patterns: ['Patient ID{sep}{value}'], text: '[A-Z]{0,2}[0-9]{5,6}'}
    other_lines: ['IOL .*']             # lines that belong to the layout and hold no field
    last_line: 'End of report'          # without it the page may be cut off
    order: [[K1, K2]]                   # the first is never above the second
    examples: [{text: ..., values: {...}}]   # its own tests: `make test` and `spillway check` run them

Every pattern is one or more whole lines; a run of spaces in it stands for any white space within a line. `{value}` is
the field's value or a mark for "no value" (`blanks`), `{any}` any number or such a mark. Patterns are RE2's: matching
takes time linear in the text for whatever pattern, so a text that someone crafted can't hold up the router.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import re2
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_FILE_BYTES = 64 * 1024
MAX_PARSERS = 256
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_MACRO = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BUILT_IN = frozenset({"value", "any"})
_DECIMALS = {"point": r"\.", "comma": ",", "any": "[.,]"}
_QUIET = re2.Options()
_QUIET.log_errors = False

Pattern = Annotated[str, Field(min_length=1, max_length=1000)]


class ParserError(Exception):
    """A parser can't be used; the message names the file and says what to change."""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one field is found and what it may be. `choices` maps what is printed to the value; None: see `number`."""

    name: str
    patterns: tuple[Any, ...]
    places: frozenset[str]
    """Its lines without saying which value is meant: fields that share one stand there together."""
    number: bool
    choices: Mapping[str, str] | None
    unit: str
    low: float | None
    high: float | None
    required: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the values that the parser must find in it."""

    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parser:
    """One layout's parser, its patterns compiled."""

    name: str
    schema: str
    applies_to: tuple[Any, ...]
    fields: tuple[FieldRule, ...]
    other_lines: tuple[Any, ...]
    last_line: Any | None
    order: tuple[tuple[str, str], ...]
    blanks: frozenset[str]
    examples: tuple[Example, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _literal(text: str) -> str:
    """A pattern for this text; its spaces stay, as they stand for any white space."""
    return re.escape(text).replace("\\ ", " ")


class _FieldPart(_Part):
    patterns: tuple[Pattern, ...] = Field(min_length=1, max_length=16)
    unit: str = ""
    decimal: Literal["point", "comma", "any"] = "any"
    digits: int = Field(2, ge=0, le=9)
    range: tuple[float, float] | None = None
    choices: dict[str, str] | None = None
    text: Pattern | None = None
    required: bool = True

    @model_validator(mode="after")
    def _one_kind(self) -> _FieldPart:
        if self.choices is not None and self.text is not None:
            raise ValueError("has both choices and text; keep one")
        if self.range is not None and (self.choices is not None or self.text is not None):
            raise ValueError("has a range, but is no number; take out range, or choices and text")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError("range is [least, most]")
        if any("{value}" not in pattern for pattern in self.patterns):
            raise ValueError("every pattern needs {value} once: where the value stands")
        return self

    def value(self) -> str:
        """The regular expression of a value that is there."""
        if self.choices is not None:
            return "|".join(_literal(word) for word in sorted(self.choices, key=len, reverse=True))
        if self.text is not None:
            return self.text
        fraction = f"{_DECIMALS[self.decimal]}[0-9]{{{self.digits}}}" if self.digits else ""
        return f"[-+]?[0-9]{{1,6}}{fraction}"


class _ExamplePart(_Part):
    text: str
    values: dict[str, float | str | None]


class _ParserPart(_Part):
    name: str = Field(pattern=_NAME)
    about: str = ""
    schema_name: str = Field("biometry", alias="schema")
    applies_to: tuple[Pattern, ...] = Field(min_length=1, max_length=16)
    macros: dict[str, Pattern] = {}
    blanks: tuple[str, ...] = ("---", "n/a", "-.--", "-,--")
    fields: dict[str, _FieldPart] = Field(min_length=1, max_length=64)
    other_lines: tuple[Pattern, ...] = Field((), max_length=64)
    last_line: Pattern | None = None
    order: tuple[tuple[str, str], ...] = ()
    examples: tuple[_ExamplePart, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _names(self) -> _ParserPart:
        unknown = sorted({name for pair in self.order for name in pair} - self.fields.keys())
        if unknown:
            raise ValueError(f"order names {unknown[0]}, which is no field")
        taken = sorted(_BUILT_IN & self.macros.keys())
        if taken:
            raise ValueError(f"the macro {taken[0]} is built in; give yours another name")
        return self


def read_parser(text: str, where: str) -> Parser:
    """The parser of one YAML file. Raises ParserError with every mistake in it."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ParserError(f"{where}: is larger than {MAX_FILE_BYTES // 1024} KiB; one file holds one parser")
    try:
        part = _ParserPart.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ParserError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ParserError(f"{where}: {told}") from None
    lines = _Compiler(where, part)
    return Parser(
        part.name,
        part.schema_name,
        tuple(lines.compiled(pattern, "applies_to") for pattern in part.applies_to),
        tuple(_rule(lines, name, field) for name, field in part.fields.items()),
        tuple(lines.compiled(pattern, "other_lines") for pattern in part.other_lines),
        None if part.last_line is None else lines.compiled(part.last_line, "last_line"),
        part.order,
        frozenset(part.blanks),
        tuple(Example(example.text, example.values) for example in part.examples),
    )


def _rule(lines: _Compiler, name: str, field: _FieldPart) -> FieldRule:
    low, high = field.range if field.range is not None else (None, None)
    return FieldRule(
        name,
        tuple(lines.compiled(pattern, f"fields.{name}", field.value()) for pattern in field.patterns),
        frozenset(pattern.replace("{value}", "{any}") for pattern in field.patterns),
        field.choices is None and field.text is None,
        field.choices,
        field.unit,
        low,
        high,
        field.required,
    )


class _Compiler:
    """Patterns of one file to RE2."""

    def __init__(self, where: str, part: _ParserPart) -> None:
        self._where = where
        self._macros = part.macros
        self._blank = "|".join(map(_literal, part.blanks))

    def compiled(self, pattern: str, field: str, value: str = "") -> Any:
        """A whole-line pattern. Raises ParserError."""
        known = {**self._macros, "any": f"(?:[-+]?[0-9]+(?:[.,][0-9]+)?|{self._blank})"}
        known["value"] = f"(?P<value>{value}|{self._blank})"

        def expand(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in known or (name == "value" and not value):
                raise ParserError(f"{self._where}: {field}: {{{name}}} is not known; add it to macros")
            return known[name]

        spaced = re.sub(r" +", lambda _: r"(?:[ \t]+)", _MACRO.sub(expand, pattern))
        try:
            return re2.compile(rf"(?m)^[ \t]*{spaced}[ \t\r]*$", _QUIET)
        except re2.error as error:
            told = error.args[0] if error.args else error
            text = told.decode(errors="replace") if isinstance(told, bytes) else told
            raise ParserError(
                f"{self._where}: {field}: the pattern {pattern!r} can't be used: {text} (RE2 syntax: no look-around, "
                "no back-references)"
            ) from None


@lru_cache(maxsize=1)
def shipped_parsers() -> tuple[Parser, ...]:
    """The parsers that come with Spillway, by name."""
    folder = files(__package__).joinpath("parsers")
    found = [(file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return tuple(read_parser(text, name) for name, text in sorted(found))


def load_parsers(folder: Path | None) -> tuple[Parser, ...]:
    """Shipped parsers and those of a folder, which replace shipped ones of the same name. Raises ParserError."""
    if folder is None:
        return shipped_parsers()
    try:
        own = [read_parser(path.read_text("utf-8"), str(path)) for path in sorted(folder.glob("*.yaml"))]
    except (OSError, UnicodeDecodeError) as error:
        raise ParserError(f"{folder}: can't be read: {error}") from None
    if not own:
        raise ParserError(f"{folder}: holds no .yaml file; put parsers there, or take out documents.parsers")
    names = [parser.name for parser in own]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ParserError(f"{folder}: two parsers have the name {twice}; rename one")
    kept: Sequence[Parser] = [parser for parser in shipped_parsers() if parser.name not in names]
    if len(kept) + len(own) > MAX_PARSERS:
        raise ParserError(f"{folder}: more than {MAX_PARSERS} parsers; every text is tried with each of them")
    return (*kept, *own)
