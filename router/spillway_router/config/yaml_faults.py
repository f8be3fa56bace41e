"""What PyYAML raises for a text that it can't read, and what is said about it: what is wrong, in which line, and the
fix.

Nothing that stands in the text is repeated: a key without its quotes or without the blank before it may be what can't
be read, and messages end in logs and terminals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import yaml

YAML_ERRORS: Final = (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError)
"""What PyYAML raises: errors of its own, ValueError for a date or a number that can't be, RecursionError for depth, and
AttributeError or LookupError for a text after `!!timestamp`, `!!bool` or `!!int` that is none."""
_REPEATED: Final = re.compile(r"\b(tag|alias|anchor|handle) (['\"]).*\2", re.DOTALL)
"""The words of PyYAML that a piece of the text follows. Elsewhere it repeats a single character."""
_NAME: Final = re.compile(r"[A-Za-z_]+")
_WHOLE_NAME: Final = re.compile(r"[A-Za-z_]+[0-9]?")
_SIGN: Final = re.compile(r"found character '(.*)' that cannot start any token")
_OPEN: Final = {"while parsing a flow mapping": ("{", "}"), "while parsing a flow sequence": ("[", "]")}
_QUOTE: Final = "a quotation mark opens in this line and is not closed there; close it"
_GENERAL: Final = "check the indentation and quotes"


@dataclass(frozen=True, slots=True)
class YamlFault:
    """What keeps a text from being read: its line, counted from 1 (0: unknown), and a sentence with the fix."""

    line: int
    problem: str


def yaml_fault(text: str, error: BaseException) -> YamlFault:
    """Explain an error of YAML_ERRORS that this text raised."""
    line = yaml_line(error)
    if isinstance(error, yaml.MarkedYAMLError):
        quote = _open_quote(text, line)
        if quote:
            return YamlFault(quote, _QUOTE)
        opened = _open_bracket(error) or _open_at_the_end(text, error)
        if opened is not None:
            return opened
        sentence = _layout(error, text, line) or _sign(error)
        if sentence:
            return YamlFault(line, sentence)
    return YamlFault(line, f"{yaml_problem(error)}; {_GENERAL}")


def _open_quote(text: str, line: int) -> int:
    """Return the line in which a quotation opens that swallowed the text up to where the error is noticed; or 0."""
    opened = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            first, last = token.start_mark.line + 1, token.end_mark.line + 1
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"') and first < last:
                opened = first if last == line else 0
    except yaml.MarkedYAMLError as error:
        if error.context == "while scanning a quoted scalar" and error.context_mark is not None:
            return int(error.context_mark.line) + 1
    except YAML_ERRORS:
        return opened
    return opened


def _open_bracket(error: yaml.MarkedYAMLError) -> YamlFault | None:
    opening, closing = _OPEN.get(error.context or "", ("", ""))
    if not opening or error.context_mark is None or error.problem_mark is None:
        return None
    first, last = error.context_mark.line + 1, error.problem_mark.line + 1
    if "stream end" in (error.problem or ""):
        return YamlFault(first, f"the {opening} that opens in this line is never closed; add {closing}")
    if first == last:
        return YamlFault(last, f"a comma or {closing} is missing after the {opening} of this line; add it")
    sentence = (
        f"the {opening} that opens in this line is not closed before line {last}; add {closing}, or a comma between "
        "two of its settings"
    )
    return YamlFault(first, sentence)


def _open_at_the_end(text: str, error: yaml.MarkedYAMLError) -> YamlFault | None:
    """Return the innermost bracket that is open where the text ends, if the text ends where a value should begin."""
    if "stream end" not in (error.problem or ""):
        return None
    opened: list[tuple[str, int]] = []
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.FlowMappingStartToken | yaml.FlowSequenceStartToken):
            opened.append(("{" if isinstance(token, yaml.FlowMappingStartToken) else "[", token.start_mark.line + 1))
        elif isinstance(token, yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken):
            opened.pop()
    if not opened:
        return None
    opening, line = opened[-1]
    closing = "}" if opening == "{" else "]"
    return YamlFault(line, f"the {opening} that opens in this line is never closed; add {closing}")


def _layout(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    problem, context = error.problem or "", error.context or ""
    if problem.startswith("expected <block end>") and error.context_mark is not None and error.problem_mark is not None:
        first, wanted, indent = error.context_mark.line + 1, error.context_mark.column, error.problem_mark.column
        if indent != wanted:
            return (
                f"is indented by {indent} spaces, and line {first}, to which it belongs, by {wanted}; indent both alike"
            )
    if problem.startswith("mapping values are not allowed"):
        return (
            "a colon and a blank stand where no setting can begin; put quotes around a text with a colon, or "
            "correct the indentation"
        )
    if problem.startswith("could not find expected ':'"):
        return "a setting has no colon after its name; write NAME: VALUE"
    rows = text.splitlines()
    if "'\\t'" in problem or (0 < line <= len(rows) and rows[line - 1].startswith("\t") and "token" in context):
        return "begins with a tab, which YAML forbids; indent with spaces"
    return ""


def _sign(error: yaml.MarkedYAMLError) -> str:
    sign = _SIGN.search(error.problem or "")
    return "" if sign is None else f"a value can't begin with {sign[1]}; put quotes around it"


def yaml_problem(error: BaseException) -> str:
    """Return what is wrong with a text, without a word of it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, yaml.YAMLError):
        return "a date, a number or a value after !! can't be read"
    problem = getattr(error, "problem", None)
    if problem is None:  # the reader's own errors name one character, and ours nothing of the text
        problem = str(error).partition("\n")[0]
    return _REPEATED.sub(r"\1", problem) or type(error).__name__


def yaml_line(error: BaseException) -> int:
    """Return the line of the problem, counted from 1; 0 if it is unknown."""
    return int(getattr(getattr(error, "problem_mark", None), "line", -1)) + 1


def decoding_fault(content: bytes, error: UnicodeDecodeError) -> YamlFault:
    """Explain why bytes are not UTF-8."""
    line_start = content.rfind(b"\n", 0, error.start) + 1
    column = len(content[line_start : error.start].decode("utf-8", "replace")) + 1
    sentence = (
        f"character {column} is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8, or convert it: "
        "iconv -f latin1 -t utf-8"
    )
    return YamlFault(content.count(b"\n", 0, error.start) + 1, sentence)


def shown_name(name: str) -> str:
    """Return the name of an unknown setting as messages show it. Only its first word is shown if it has more than
    letters, for `api_key:VALUE` without a blank is a name to YAML."""
    if _WHOLE_NAME.fullmatch(name):
        return name
    word = _NAME.match(name)
    return f"{word.group() if word else ''}…"
