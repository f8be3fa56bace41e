"""spillway.yaml and the environment to frozen Settings. Reports every mistake at once, with its line and its fix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from spillway_router.config.settings import Settings

DEFAULT_FILE = "spillway.yaml"
FILE_VARIABLE = "SPILLWAY_CONFIG"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong with the configuration: where, what, and how to mend it. `line` 0: not in the file."""

    where: str
    line: int
    problem: str

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line else ""
        return f"{place}{self.where}: {self.problem}"


class ConfigError(Exception):
    """The configuration can't be used; `mistakes` holds all of them."""

    def __init__(self, mistakes: Sequence[ConfigProblem]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(m) for m in self.mistakes))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with what they were read from: the file (None: defaults) and the environment. `serving` puts in what
    is known of the engine that was launched beside the router, after each reading."""

    settings: Settings
    path: Path | None
    text: str
    environment: Mapping[str, str]
    serving: Callable[[Settings], Settings] | None = None

    def served_by(self, serving: Callable[[Settings], Settings]) -> Loaded:
        """The same with what is known of a launched engine, now and when it is read again."""
        return replace(self, settings=serving(self.settings), serving=serving)

    def again(self) -> Loaded:
        """Read anew from the same place. Raises ConfigError."""
        found = read(None if self.path is None else str(self.path), self.environment)
        return found if self.serving is None else found.served_by(self.serving)


def find(path: str | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """The configuration file: the option, SPILLWAY_CONFIG, ./spillway.yaml, or None for the defaults."""
    environment = os.environ if environment is None else environment
    named = path or environment.get(FILE_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if default.exists() else None


def read(path: str | None = None, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read and check the configuration. Raises ConfigError with every mistake."""
    environment = dict(os.environ if environment is None else environment)
    found = find(path, environment)
    if found is None:
        return Loaded(Settings(), None, "", environment)
    try:
        text = found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([ConfigProblem(str(found), 0, f"can't be read: {error}")]) from None
    return Loaded(parse(text, environment), found, text, environment)


def parse(text: str, environment: Mapping[str, str]) -> Settings:
    """Settings from YAML text. Raises ConfigError with every mistake."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError([ConfigProblem("YAML", line, f"{problem}; check the indentation and quotes")]) from None
    if data is None:
        return Settings()
    if not isinstance(data, dict):
        raise ConfigError([ConfigProblem("file", 1, "must be a mapping of settings, such as `listen: 127.0.0.1:8080`")])
    mistakes: list[ConfigProblem] = []
    lines = _lines(node)
    filled = _fill(data, (), environment, lines, mistakes)
    try:
        settings: Settings | None = Settings.model_validate(filled)
    except ValidationError as error:
        mistakes.extend(_mistake(e, lines) for e in error.errors())
        settings = None
    # Looked for in the raw values, so that they are told together with the values of a wrong form.
    mistakes.extend(ConfigProblem(_dotted(path), _line(path, lines), problem) for path, problem in references(filled))
    if mistakes or settings is None:
        raise ConfigError(sorted(mistakes, key=lambda m: m.line))
    return settings


def unset(text: str | None, environment: Mapping[str, str]) -> str:
    """The first variable that a setting asks for and the environment lacks; "" when there is none."""
    return next((name for name in _VARIABLE.findall(text or "") if name not in environment), "")


def located(text: str, mistake: ConfigProblem) -> ConfigProblem:
    """A mistake about `backends.NAME` or `budgets.0.degrade` with the line where that stands in the file."""
    group, _, name = mistake.where.partition(".")
    if text and group == "budgets":
        path = tuple(int(part) if part.isdecimal() else part for part in mistake.where.split("."))
        return replace(mistake, line=_line(path, _lines(yaml.compose(text, Loader=yaml.SafeLoader))))
    rows = (yaml.safe_load(text) or {}).get(group) if text and not mistake.line else None
    if group != "backends" or not isinstance(rows, list):
        return mistake
    lines = _lines(yaml.compose(text, Loader=yaml.SafeLoader))
    found = next((i for i, row in enumerate(rows) if isinstance(row, dict) and row.get("name") == name), None)
    return mistake if found is None else replace(mistake, line=lines.get((group, found), 0))


def references(data: Mapping[str, Any]) -> list[tuple[_Path, str]]:
    """Names that nothing in the file carries, and what stands twice: (where, what is wrong). Values of a wrong form
    are passed over, they are told elsewhere."""
    rows = [row if isinstance(row, dict) else {} for row in _items(data.get("backends", _DEFAULT_BACKENDS))]
    names = [str(row.get("name")) for row in rows]
    known = ", ".join(sorted(set(names)))
    missing = f"no backend has the name {{!r}}; use one of {known}"
    found: list[tuple[_Path, str]] = []
    for i, name in enumerate(names):
        if name in names[:i]:
            found.append((("backends", i, "name"), f"backend name {name!r} stands twice; rename one"))
    aliases, confidence = data.get("aliases"), data.get("confidence")
    wanted: list[tuple[_Path, object]] = []
    for alias, part in aliases.items() if isinstance(aliases, dict) else ():
        chain = _items(part.get("chain")) if isinstance(part, dict) else []
        wanted.extend((("aliases", alias, "chain", i), name) for i, name in enumerate(chain))
    tiers = _items(confidence.get("escalate_to")) if isinstance(confidence, dict) else []
    wanted.extend((("confidence", "escalate_to", i), name) for i, name in enumerate(tiers))
    documents = data.get("documents")
    asked = _items(documents.get("external")) if isinstance(documents, dict) else []
    wanted.extend((("documents", "external", i), name) for i, name in enumerate(asked))
    caps = [cap if isinstance(cap, dict) else {} for cap in _items(data.get("budgets"))]
    for i, cap in enumerate(caps):
        scope = str(cap.get("scope"))
        if scope.startswith("backend:"):
            wanted.append((("budgets", i, "scope"), scope.removeprefix("backend:")))
        for j, rung in enumerate(_items(cap.get("degrade"))):
            dropped = _items(rung.get("drop")) if isinstance(rung, dict) else []
            wanted.extend((("budgets", i, "degrade", j, "drop", k), name) for k, name in enumerate(dropped))
        if scope in [str(c.get("scope")) for c in caps[:i] if c.get("period") == cap.get("period")]:
            found.append((("budgets", i), "two caps have the same scope and period; keep one"))
    found.extend((path, missing.format(name)) for path, name in wanted if name not in names)
    return found


_DEFAULT_BACKENDS = [{"name": b.name} for b in Settings().backends]


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _lines(node: yaml.Node | None) -> dict[_Path, int]:
    """Path of every value -> its line, counted from 1."""
    found: dict[_Path, int] = {}
    todo: list[tuple[_Path, yaml.Node | None]] = [((), node)]
    while todo:
        path, current = todo.pop()
        if current is None:
            continue
        found.setdefault(path, current.start_mark.line + 1)
        if isinstance(current, yaml.MappingNode):
            for key, value in current.value:
                found[(*path, key.value)] = key.start_mark.line + 1
                todo.append(((*path, key.value), value))
        elif isinstance(current, yaml.SequenceNode):
            todo.extend(((*path, i), item) for i, item in enumerate(current.value))
    return found


def _fill(
    value: Any, path: _Path, environment: Mapping[str, str], lines: Mapping[_Path, int], mistakes: list[ConfigProblem]
) -> Any:
    """The value with ${NAME} replaced by the environment's."""
    if isinstance(value, dict):
        return {k: _fill(v, (*path, k), environment, lines, mistakes) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, (*path, i), environment, lines, mistakes) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    if path[:1] == ("backends",) and path[2:] == ("api_key",) and unset(value, environment):
        return value  # no mistake: a backend without its key is off, which `assemble` tells
    for name in _VARIABLE.findall(value):
        if name not in environment:
            mistakes.append(ConfigProblem(_dotted(path), _line(path, lines), f"${{{name}}} is not set; export {name}"))
    return _VARIABLE.sub(lambda m: environment.get(m.group(1), ""), value)


def _mistake(error: Any, lines: Mapping[_Path, int]) -> ConfigProblem:
    path = tuple(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown setting; check the spelling or remove it"
    elif error["type"] == "missing":
        message = "is missing; add it"
    return ConfigProblem(_dotted(path) or "file", _line(path, lines), message)


def _line(path: _Path, lines: Mapping[_Path, int]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _dotted(path: _Path) -> str:
    return ".".join(str(p) for p in path)
