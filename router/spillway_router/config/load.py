"""spillway.yaml and the environment, read into frozen Settings. Every problem is reported at once, with its line and
its fix."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from spillway_router.config.setting_faults import NAME, close_name, setting_fault
from spillway_router.config.settings import SQLITE_URL, Settings
from spillway_router.config.yaml_faults import YAML_ERRORS, decoding_fault, shown_name, yaml_fault
from spillway_router.config.yaml_numbers import misread_numbers
from spillway_router.config.yaml_size import MOST_NODES, is_too_large
from spillway_router.core.confidence.referee import SELF
from spillway_router.core.routing.model import ANY_MODEL

DEFAULT_FILE = "spillway.yaml"
FILE_VARIABLE = "SPILLWAY_CONFIG"
TEXT_VARIABLE = "SPILLWAY_YAML"
ENCODED_VARIABLE = "SPILLWAY_YAML_BASE64"
"""The whole configuration as text, for containers in which no file can be mounted; the second one in Base64."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_COLON = re.compile(r":.+", re.DOTALL)
_Path = tuple[str | int, ...]
_Fault = tuple[_Path, str]


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem of the configuration: where it is, what is wrong and how to fix it. `line` 0: not in the file."""

    where: str
    line: int
    problem: str

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line else ""
        return f"{place}{self.where}: {self.problem}"

    def in_file(self, path: Path | None) -> str:
        """Return the problem with its place as FILE:LINE, which editors and terminals open; `path` None: no file."""
        if path is None:
            return str(self)
        if self.where == str(path):
            return str(self)
        place = f"{path}:{self.line}: " if self.line else f"{path}: "
        return f"{place}{self.where}: {self.problem}"


@dataclass(frozen=True, slots=True)
class ConfigRejected:
    """A configuration that can't be used, with every problem that prevents it."""

    problems: tuple[ConfigProblem, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Lists that collect what is found while values are derived from Settings.

    `problems` prevent the configuration from being used. `disabled` are backends that are left out, and `warnings` need
    attention; neither prevents anything.
    """

    problems: list[ConfigProblem] = field(default_factory=list)
    disabled: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of a configuration without the settings that are wrong, so that the rest can be examined too.

    `damaged` are the names of the backends of which something was taken out. `text` is the whole text.
    """

    settings: Settings
    text: str
    damaged: frozenset[str]


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds every reason that reading it shows.

    `remainder` is None if nothing of it can be used.
    """

    def __init__(self, problems: Sequence[ConfigProblem], remainder: Remainder | None = None) -> None:
        self.problems = tuple(problems)
        self.remainder = remainder
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the file (None: defaults) and the environment that they were read from.

    `serving` adds what is known of the engine that was launched next to the router, after each reading.
    """

    settings: Settings
    path: Path | None
    text: str
    environment: Mapping[str, str]
    serving: Callable[[Settings], Settings] | None = None

    def served_by(self, serving: Callable[[Settings], Settings]) -> Loaded:
        """Return the same with what is known of a launched engine, which is also added when the file is read again."""
        return replace(self, settings=serving(self.settings), serving=serving)

    def again(self) -> Loaded:
        """Read the same file again. Raises ConfigError, also for a file that has become empty: a full disk or an editor
        leaves such a one, and the defaults ask for no keys and know no private words."""
        loaded = read(None if self.path is None else str(self.path), self.environment)
        if self.path is not None and _is_empty(loaded.text) and not _is_empty(self.text):
            raise ConfigError(
                [ConfigProblem("file", 1, "has become empty; write it again, or restart for the defaults")]
            )
        return loaded if self.serving is None else loaded.served_by(self.serving)


def _is_empty(text: str) -> bool:
    """Return whether a configuration has nothing but comments."""
    return all(line.strip() == "" or line.lstrip().startswith("#") for line in text.splitlines())


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process, as `read` takes it by default."""
    return os.environ


def find(path: str | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration file: the option, SPILLWAY_CONFIG, ./spillway.yaml, or None.

    None stands for the text in a variable (TEXT_VARIABLE), or without one for the defaults.
    """
    environment = os.environ if environment is None else environment
    if not path and (environment.get(ENCODED_VARIABLE) or environment.get(TEXT_VARIABLE)):
        return None
    named = path or environment.get(FILE_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if default.exists() else None


def read(path: str | None = None, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read and validate the configuration. Raises ConfigError with every problem."""
    environment = dict(os.environ if environment is None else environment)
    file = find(path, environment)
    try:
        text = _text_of_variable(environment) if file is None else _text_of_file(file)
    except (OSError, ValueError) as error:
        raise ConfigError([ConfigProblem(str(file or "environment"), 0, _unread(error))]) from None
    # Not resolved: a file that is mounted through a link counts where it is seen.
    folder = Path.cwd() if file is None else file.absolute().parent
    try:
        settings = parse(text, environment)
    except ConfigError as error:
        if error.remainder is not None:
            error.remainder = replace(error.remainder, settings=error.remainder.settings.with_paths_from(folder))
        raise
    _check_moved_ledger(settings, folder, text)
    return Loaded(settings.with_paths_from(folder), file, text, environment)


def _check_moved_ledger(settings: Settings, folder: Path, text: str) -> None:
    """Raise ConfigError if the ledger lies where relative paths were counted from before: the working directory."""
    path = settings.ledger.path
    if path is None or path.expanduser().is_absolute() or (folder / path).exists() or not path.exists():
        return
    problem = (
        f"{path} counts from the folder of the configuration file, where there is no ledger, but there is one in the "
        f"working directory. Move it to {folder / path} together with the files beside it that begin with its name, "
        f'or name it in full: ledger: {{url: "{SQLITE_URL}{path.absolute()}"}}'
    )
    line = _line(("ledger", "url"), _lines(yaml.compose(text, Loader=yaml.SafeLoader))) if text else 0
    raise ConfigError([ConfigProblem("ledger.url", line, problem)])


def _unread(error: OSError | ValueError) -> str:
    """Return why a configuration can't be read, and what to do."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    fixes: Mapping[type[Exception], str] = {
        FileNotFoundError: "write it with `spillway init --output FILE`, or name another file with --config",
        IsADirectoryError: "name a file in it with --config",
        PermissionError: "let this user read it, or run the command as the user of the service",
    }
    fix = fixes.get(type(error), "")
    return f"can't be read: {reason}" + (f"; {fix}" if fix else "")


def _text_of_file(file: Path) -> str:
    """Return the text of a file. Raises OSError, and ConfigError if it is no UTF-8."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        fault = decoding_fault(content, error)
        raise ConfigError([ConfigProblem("text", fault.line, fault.problem)]) from None


def _text_of_variable(environment: Mapping[str, str]) -> str:
    """Return the configuration in a variable, or an empty text. Raises ValueError if it is not Base64 or not UTF-8."""
    encoded = environment.get(ENCODED_VARIABLE)
    if encoded:
        return b64decode("".join(encoded.split()), validate=True).decode("utf-8")
    return environment.get(TEXT_VARIABLE, "")


def parse(text: str, environment: Mapping[str, str]) -> Settings:
    """Return the Settings of a YAML text. Raises ConfigError with every problem."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if is_too_large(node):
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES} values")
        data = yaml.safe_load(text)
    except YAML_ERRORS as error:
        fault = yaml_fault(text, error)
        raise ConfigError([ConfigProblem("YAML", fault.line, fault.problem)]) from None
    if data is None:
        return Settings()
    if not isinstance(data, dict):
        raise ConfigError([ConfigProblem("file", 1, "must be a mapping of settings, such as `listen: 127.0.0.1:8080`")])
    problems: list[ConfigProblem] = list(_duplicate_keys(node))
    lines = _lines(node)
    filled = _fill(data, (), environment, lines, problems)
    unset_in = [problem.where.split(".")[1] for problem in problems if problem.where.startswith("backends.")]
    checked = _check(filled)
    misread = tuple(misread_numbers(node))
    checked = replace(checked, faults=_apart(checked.faults, misread), spoiled=(*checked.spoiled, *dict(misread)))
    problems.extend(ConfigProblem(_dotted(path) or "file", _line(path, lines), text) for path, text in checked.faults)
    if problems or checked.settings is None:
        ordered = sorted(problems, key=lambda problem: problem.line)
        raise ConfigError(ordered, _remainder(text, filled, checked, unset_in))
    return checked.settings


@dataclass(frozen=True, slots=True)
class _Checked:
    """Values that were validated: the settings, None if they are wrong, and each fault with the path of its setting.

    `spoiled` are the paths that have to go for the rest to be valid.
    """

    settings: Settings | None
    faults: tuple[_Fault, ...] = ()
    spoiled: tuple[_Path, ...] = ()


def _check(filled: dict[str, Any]) -> _Checked:
    """Validate values. The references are checked in the raw values, so that they are reported together with values of
    a wrong type."""
    faults: list[_Fault] = []
    spoiled: list[_Path] = []
    try:
        settings: Settings | None = Settings.model_validate(filled)
    except ValidationError as error:
        settings = None
        for one in error.errors():
            path = tuple(part for part in one["loc"] if not str(part).startswith("("))  # without the tags of unions
            spoiled.append(path[:-1] if one["type"] == "missing" else path)
            shown = (*path[:-1], shown_name(str(path[-1]))) if one["type"] == "extra_forbidden" else path
            faults.append((shown, setting_fault({**one, "loc": path})))
    dangling = references(_with_meant_backends(filled))
    return _Checked(settings, (*faults, *dangling), (*spoiled, *(path for path, _ in dangling)))


def _apart(faults: Iterable[_Fault], misread: Iterable[_Fault]) -> tuple[_Fault, ...]:
    """Return all faults. A number that YAML reads otherwise than people is that fault alone: nobody wrote its value."""
    by_path = dict(misread)
    return (*by_path.items(), *(fault for fault in faults if fault[0] not in by_path))


def _with_meant_backends(filled: dict[str, Any]) -> dict[str, Any]:
    """Return the values with a misspelt `backends`, which is reported as such, at its place for the references."""
    if "backends" in filled:
        return filled
    meant = next((name for name in filled if close_name(str(name), ("backends",)) and name not in _TOP_LEVEL), None)
    return filled if meant is None else {**filled, "backends": filled[meant]}


_TOP_LEVEL = frozenset(Settings.model_fields)
_MOST_PRUNINGS = 8
"""How often wrong settings are taken out, because taking one out may spoil others, such as a chain of a backend."""


def _remainder(text: str, filled: dict[str, Any], checked: _Checked, damaged_rows: Collection[str]) -> Remainder | None:
    """Return what is left without the wrong settings; None if it is nothing valid. `damaged_rows` are the numbers of
    backends of which something is missing already."""
    data: Any = filled
    backends = enumerate(_items(filled.get("backends")))
    damaged = {str(row.get("name")) for i, row in backends if str(i) in damaged_rows and isinstance(row, dict)}
    for _ in range(_MOST_PRUNINGS):
        rows = _items(data.get("backends"))
        indices = [path[1] for path in checked.spoiled if path[:1] == ("backends",) and len(path) > 1]
        damaged |= {str(rows[i].get("name")) for i in indices if isinstance(i, int) and isinstance(rows[i], dict)}
        data = _without(data, {_existing(path, data) for path in checked.spoiled})
        if not isinstance(data, dict):
            return None
        checked = _check(data)
        if not checked.faults and checked.settings is not None:
            return Remainder(checked.settings, text, frozenset(damaged))
    return None


def _existing(path: _Path, data: Any) -> _Path:
    """Return the part of a path that the values have: pydantic adds the names of alternatives to it."""
    for depth, part in enumerate(path):
        if not (part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))):
            return path[:depth]
        data = data[part]
    return path


def _without(value: Any, spoiled: Collection[_Path], path: _Path = ()) -> Any:
    """Return the value without what stands at these paths; None without the value itself."""
    if path in spoiled:
        return None
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if (*path, key) not in spoiled}
        return {key: _without(one, spoiled, (*path, key)) for key, one in kept.items()}
    if isinstance(value, list):
        kept_items = [(i, one) for i, one in enumerate(value) if (*path, i) not in spoiled]
        return [_without(one, spoiled, (*path, i)) for i, one in kept_items]
    return value


def _duplicate_keys(node: yaml.Node | None) -> Iterator[ConfigProblem]:
    """Yield the keys that occur twice in one mapping; YAML forbids them, and its parser would let the last one win."""
    pending: list[tuple[_Path, yaml.Node | None]] = [((), node)]
    while pending:
        path, current = pending.pop()
        if isinstance(current, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in current.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    if key.value in first and key.value != "<<":
                        problem = f"duplicate key, first in line {first[key.value]}; keep one of the two"
                        yield ConfigProblem(_dotted((*path, shown_name(key.value))), line, problem)
                    first.setdefault(key.value, line)
                    pending.append(((*path, key.value), value))
        elif isinstance(current, yaml.SequenceNode):
            pending.extend(((*path, i), item) for i, item in enumerate(current.value))


def unset(text: str | None, environment: Mapping[str, str]) -> str:
    """Return the first variable that a setting refers to and the environment lacks, or ""."""
    return next((name for name in _VARIABLE.findall(text or "") if name not in environment), "")


def located(text: str, problem: ConfigProblem) -> ConfigProblem:
    """Return a problem of `backends.NAME` or `budgets.0.degrade` with the line of that setting in the file."""
    group, _, name = problem.where.partition(".")
    if text and group != "backends" and name:
        path = tuple(int(part) if part.isdecimal() else part for part in problem.where.split("."))
        return replace(problem, line=_line(path, _lines(yaml.compose(text, Loader=yaml.SafeLoader))))
    rows = (yaml.safe_load(text) or {}).get(group) if text and not problem.line else None
    if group != "backends" or not isinstance(rows, list):
        return problem
    lines = _lines(yaml.compose(text, Loader=yaml.SafeLoader))
    index = next((i for i, row in enumerate(rows) if isinstance(row, dict) and row.get("name") == name), None)
    return problem if index is None else replace(problem, line=lines.get((group, index), 0))


def references(data: Mapping[str, Any]) -> list[tuple[_Path, str]]:
    """Return the path and the problem of every reference to a backend that does not exist, and of every duplicate.

    Values of a wrong type are skipped, because the validation of the settings reports them.
    """
    rows = [row if isinstance(row, dict) else {} for row in _items(data.get("backends", _DEFAULT_BACKENDS))]
    names = [str(row.get("name")) for row in rows]
    usable = sorted({name for row, name in zip(rows, names, strict=True) if _is_name(row.get("name"))})
    caps = [cap if isinstance(cap, dict) else {} for cap in _items(data.get("budgets"))]
    any_model = {str(row.get("name")) for row in rows if row.get("model") == ANY_MODEL}
    problems = []
    for path, name in _backend_references(data, caps):
        backend_name, _, model = str(name).partition("/")
        if path[0] == "budgets":
            backend_name, model = str(name), "every model of it"
        if name in any_model and path[0] != "budgets":
            problems.append((path, f"{name} serves any model; name one, as {name}/MODEL"))
        elif name not in names and not (backend_name in any_model and model):
            problems.append((path, _no_backend(str(name), usable)))
    return [*_duplicate_backends(names), *_duplicate_budgets(caps), *problems]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _no_backend(name: str, usable: Sequence[str]) -> str:
    if not usable:
        return f"no backend has the name {name!r}; add one to backends"
    meant = close_name(name, usable)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"no backend has the name {name!r}; use one of {', '.join(usable)}{hint}"


def _duplicate_backends(names: Sequence[str]) -> Iterator[tuple[_Path, str]]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield ("backends", i, "name"), f"duplicate backend name {name!r}; rename one"


def _duplicate_budgets(caps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[_Path, str]]:
    identities = [(str(cap.get("scope")), cap.get("period")) for cap in caps]
    for i, identity in enumerate(identities):
        if identity in identities[:i]:
            yield ("budgets", i), "two caps have the same scope and period; keep one"


def _backend_references(data: Mapping[str, Any], caps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[_Path, object]]:
    """Yield the path and the name of every reference to a backend."""
    aliases, confidence, documents = data.get("aliases"), data.get("confidence"), data.get("documents")
    for alias, part in aliases.items() if isinstance(aliases, dict) else ():
        for i, name in enumerate(_items(part.get("chain")) if isinstance(part, dict) else []):
            yield ("aliases", alias, "chain", i), name
    for i, step in enumerate(_items(confidence.get("escalate_to")) if isinstance(confidence, dict) else []):
        if _step_name(step) is not None:
            yield ("confidence", "escalate_to", i), _step_name(step)
    referee = confidence.get("referee") if isinstance(confidence, dict) else None
    if isinstance(referee, dict) and referee.get("backend") not in (None, "", SELF):
        yield ("confidence", "referee", "backend"), referee["backend"]
    for i, name in enumerate(_items(documents.get("external")) if isinstance(documents, dict) else []):
        yield ("documents", "external", i), name
    for where, effects in _all_effects(data):
        yield from _effect_references(data, where, effects)
    for i, cap in enumerate(caps):
        scope = str(cap.get("scope"))
        if scope.startswith("backend:"):
            yield ("budgets", i, "scope"), scope.removeprefix("backend:")
        for j, step in enumerate(_items(cap.get("degrade"))):
            for k, name in enumerate(_items(step.get("drop")) if isinstance(step, dict) else []):
                yield ("budgets", i, "degrade", j, "drop", k), name


def _step_name(step: object) -> object:
    """Return the backend of a step of escalation, which is its name or has it."""
    return step.get("backend") if isinstance(step, dict) else step


def _all_effects(data: Mapping[str, Any]) -> Iterator[tuple[_Path, Mapping[str, Any]]]:
    """Yield the rules of the policy and the arms of the experiments, which name backends in the same way."""
    policy = data.get("policy")
    for i, rule in enumerate(_items(policy.get("rules")) if isinstance(policy, dict) else []):
        if isinstance(rule, dict):
            yield ("policy", "rules", i), rule
    for i, experiment in enumerate(_items(data.get("experiments"))):
        for j, arm in enumerate(_items(experiment.get("arms")) if isinstance(experiment, dict) else []):
            if isinstance(arm, dict):
                yield ("experiments", i, "arms", j), arm


def _effect_references(
    data: Mapping[str, Any], where: _Path, effects: Mapping[str, Any]
) -> Iterator[tuple[_Path, object]]:
    """Yield the references to backends in a rule or an arm. What it forbids may also be a provider."""
    providers = {str(row.get("provider")) for row in _items(data.get("backends")) if isinstance(row, dict)}
    escalate, forbid = effects.get("escalate"), effects.get("forbid")
    lists: list[tuple[_Path, object]] = [(("chain",), effects.get("chain")), (("prefer",), effects.get("prefer"))]
    if isinstance(escalate, dict):
        lists.append((("escalate", "to"), escalate.get("to")))
    for inside, names in lists:
        for j, name in enumerate(_items(names)):
            yield (*where, *inside, j), _step_name(name)
    for j, name in enumerate([forbid] if isinstance(forbid, str) else _items(forbid)):
        if name not in {"cloud", "local", *providers}:
            yield (*where, "forbid", j), name


_DEFAULT_BACKENDS = [{"name": b.name} for b in Settings().backends]


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _lines(node: yaml.Node | None) -> dict[_Path, int]:
    """Return the line of every value by its path, counted from 1."""
    lines: dict[_Path, int] = {}
    pending: list[tuple[_Path, yaml.Node | None]] = [((), node)]
    while pending:
        path, current = pending.pop()
        if current is None:
            continue
        lines.setdefault(path, current.start_mark.line + 1)
        if isinstance(current, yaml.MappingNode):
            for key, value in current.value:
                lines[(*path, key.value)] = key.start_mark.line + 1
                pending.append(((*path, key.value), value))
        elif isinstance(current, yaml.SequenceNode):
            pending.extend(((*path, i), item) for i, item in enumerate(current.value))
    return lines


def _fill(
    value: Any, path: _Path, environment: Mapping[str, str], lines: Mapping[_Path, int], problems: list[ConfigProblem]
) -> Any:
    """Return the value with each ${NAME} replaced by the environment's value."""
    if isinstance(value, dict):
        return {k: _fill(v, (*path, k), environment, lines, problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, (*path, i), environment, lines, problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    if path[:1] == ("backends",) and path[2:] == ("api_key",) and unset(value, environment):
        return value  # a backend without its key is disabled, which `assemble` reports; it is no error
    for name in _VARIABLE.findall(value):
        if name not in environment:
            problems.append(ConfigProblem(_dotted(path), _line(path, lines), f"${{{name}}} is not set; export {name}"))
    return _VARIABLE.sub(lambda m: environment.get(m.group(1), ""), value)


def _line(path: _Path, lines: Mapping[_Path, int]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _dotted(path: _Path) -> str:
    """Return a path for messages, without what follows a colon in a name: a value that lost the blank before it."""
    return ".".join(_COLON.sub(":…", str(p)) for p in path)
