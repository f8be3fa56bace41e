"""Parsers as YAML files: check and compile them. `load_parsers` returns the shipped parsers and the user's own.

    name: iolmaster_en                  # unique
    schema: biometry                    # the schema whose values it reads
    applies_to: ['IOLMaster 700.*']     # the text must contain at least one of these lines
    macros: {sep: '(?:: ?| = | )'}      # replaces {sep} in a pattern
    fields:
      AL: {patterns: ['AL{sep}{value} mm  SNR {any}'], unit: mm, decimal: point, digits: 2, range: [20, 33]}
      eye: {patterns: ['Eye{sep}{value}'], choices: {OD (right): OD, OS (left): OS}}
      id: {patterns: ['Patient ID{sep}{value}'], text: '[A-Z]{0,2}[0-9]{5,6}'}
    other_lines: ['IOL .*']             # lines of the layout without a field
    last_line: 'End of report'          # without it the page may be cut off
    order: [[K1, K2]]                   # the first is never above the second
    examples: [{text: ..., values: {...}}]   # its own tests: `make test` and `spillway check` run them

Every pattern covers one or more whole lines; a run of spaces in it matches any white space within a line. `{value}` is
the field's value or a mark for "no value" (`blanks`), `{any}` any number or such a mark. Patterns use RE2's syntax,
which matches in time linear in the text whatever the pattern: a crafted text can't stall the router.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    """A parser file is invalid; the message names the file and says what to change."""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one field is found, and its possible values.

    `choices` maps what is printed to the value. Without choices the value is a number if `number` is True, else text.
    """

    name: str
    patterns: tuple[Any, ...]
    lines: frozenset[str]
    """Its patterns with {any} for the value: fields that share one are on the same line."""
    number: bool
    choices: Mapping[str, str] | None
    unit: str
    low: float | None
    high: float | None
    required: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A text, and the values that the parser must read in it."""

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


class _FilePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _literal(text: str) -> str:
    """Escape a text for a pattern. Spaces stay unescaped, as they match any white space."""
    return re.escape(text).replace("\\ ", " ")


class _FieldPart(_FilePart):
    patterns: tuple[Pattern, ...] = Field(min_length=1, max_length=16)
    unit: str = ""
    decimal: Literal["point", "comma", "any"] = "any"
    digits: int = Field(2, ge=0, le=9)
    range: tuple[float, float] | None = None
    choices: dict[str, str] | None = None
    text: Pattern | None = None
    required: bool = True

    @model_validator(mode="after")
    def _check(self) -> _FieldPart:
        if self.choices is not None and self.text is not None:
            raise ValueError("has both choices and text; keep one")
        if self.range is not None and (self.choices is not None or self.text is not None):
            raise ValueError("has a range but is not a number; remove range, or choices and text")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError("range is [least, most]")
        if any("{value}" not in pattern for pattern in self.patterns):
            raise ValueError("every pattern needs {value} at the place of the value")
        return self

    def value(self) -> str:
        """Return the regular expression of a value that is present."""
        if self.choices is not None:
            return "|".join(_literal(word) for word in sorted(self.choices, key=len, reverse=True))
        if self.text is not None:
            return self.text
        fraction = f"{_DECIMALS[self.decimal]}[0-9]{{{self.digits}}}" if self.digits else ""
        return f"[-+]?[0-9]{{1,6}}{fraction}"


class _ExamplePart(_FilePart):
    text: str
    values: dict[str, float | str | None]


class _ParserPart(_FilePart):
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
    def _check_names(self) -> _ParserPart:
        unknown = sorted({name for pair in self.order for name in pair} - self.fields.keys())
        if unknown:
            raise ValueError(f"order names {unknown[0]}, which is not a field")
        taken = sorted(_BUILT_IN & self.macros.keys())
        if taken:
            raise ValueError(f"the macro {taken[0]} is built in; rename yours")
        return self


def read_parser(text: str, where: str) -> Parser:
    """Compile the parser in the text of one YAML file. `where` names the file in errors. Raise ParserError."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ParserError(f"{where}: the file is larger than {MAX_FILE_BYTES // 1024} KiB; it may hold one parser only")
    try:
        part = _ParserPart.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ParserError(f"{where}: {problems}") from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError) as error:
        raise ParserError(f"{where}: the file is not valid YAML: {' '.join(str(error).split())}") from None
    patterns = _PatternCompiler(where, part)
    return Parser(
        name=part.name,
        schema=part.schema_name,
        applies_to=tuple(patterns.compile(pattern, "applies_to") for pattern in part.applies_to),
        fields=tuple(_field_rule(patterns, name, field) for name, field in part.fields.items()),
        other_lines=tuple(patterns.compile(pattern, "other_lines") for pattern in part.other_lines),
        last_line=None if part.last_line is None else patterns.compile(part.last_line, "last_line"),
        order=part.order,
        blanks=frozenset(part.blanks),
        examples=tuple(Example(example.text, example.values) for example in part.examples),
    )


def _field_rule(patterns: _PatternCompiler, name: str, field: _FieldPart) -> FieldRule:
    low, high = field.range if field.range is not None else (None, None)
    return FieldRule(
        name=name,
        patterns=tuple(patterns.compile(pattern, f"fields.{name}", field.value()) for pattern in field.patterns),
        lines=frozenset(pattern.replace("{value}", "{any}") for pattern in field.patterns),
        number=field.choices is None and field.text is None,
        choices=field.choices,
        unit=field.unit,
        low=low,
        high=high,
        required=field.required,
    )


class _PatternCompiler:
    """Compiles the patterns of one file to RE2."""

    def __init__(self, where: str, part: _ParserPart) -> None:
        self._where = where
        self._macros = part.macros
        self._blank = "|".join(map(_literal, part.blanks))

    def compile(self, pattern: str, field: str, value: str = "") -> Any:
        """Compile a whole-line pattern. `value` is the regular expression for {value}. Raise ParserError."""
        macros = {**self._macros, "any": f"(?:[-+]?[0-9]+(?:[.,][0-9]+)?|{self._blank})"}
        macros["value"] = f"(?P<value>{value}|{self._blank})"

        def expand(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in macros or (name == "value" and not value):
                raise ParserError(f"{self._where}: {field}: {{{name}}} is unknown; add it to macros")
            return macros[name]

        spaced = re.sub(r" +", lambda _: r"(?:[ \t]+)", _MACRO.sub(expand, pattern))
        try:
            return re2.compile(rf"(?m)^[ \t]*{spaced}[ \t\r]*$", _QUIET)
        except re2.error as error:
            detail = error.args[0] if error.args else error
            reason = detail.decode(errors="replace") if isinstance(detail, bytes) else detail
            raise ParserError(
                f"{self._where}: {field}: the pattern {pattern!r} is invalid: {reason} (RE2 syntax: no look-around, "
                "no back-references)"
            ) from None


@lru_cache(maxsize=1)
def shipped_parsers() -> tuple[Parser, ...]:
    """Return the parsers that come with Spillway, sorted by file name."""
    folder = files(__package__).joinpath("parsers")
    texts = [(file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return tuple(read_parser(text, name) for name, text in sorted(texts))


def load_parsers(folder: Path | None) -> tuple[Parser, ...]:
    """Return the shipped parsers and those of a folder, which replace shipped ones of the same name.

    Raise ParserError.
    """
    if folder is None:
        return shipped_parsers()
    try:
        users = [read_parser(path.read_text("utf-8"), str(path)) for path in sorted(folder.glob("*.yaml"))]
    except (OSError, UnicodeDecodeError) as error:
        raise ParserError(f"{folder}: the folder can't be read: {error}") from None
    if not users:
        raise ParserError(f"{folder}: the folder has no .yaml file; put parsers there, or remove documents.parsers")
    names = [parser.name for parser in users]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ParserError(f"{folder}: two parsers have the name {duplicate}; rename one")
    shipped = [parser for parser in shipped_parsers() if parser.name not in names]
    if len(shipped) + len(users) > MAX_PARSERS:
        raise ParserError(f"{folder}: more than {MAX_PARSERS} parsers; every text is tried with each of them")
    return (*shipped, *users)
