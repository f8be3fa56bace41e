"""The policies of a comparison: the present configuration, other files, and single settings changed.

A file without `backends` is a part of a configuration: its sections take the place of those of the present one, and
what it leaves out stays. A change names a setting by its path, such as `slo.ttft_ms` or `policy.rules.NAME.chain`; in
a list an entry goes by its name or its place. Every policy is parsed and assembled like the configuration of a router,
so that its problems are those of `spillway check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from spillway_router.config import load as config
from spillway_router.config.assemble import assembly_of
from spillway_router.config.costs import budget_lines, pacing_rules
from spillway_router.config.load import ConfigError, ConfigProblem, Loaded
from spillway_router.core.money.attribution import GpuRental
from spillway_router.core.replay.replay import CloudModel, ReplayTerms

MOST_VALUES = 50
"""Values of one sweep."""


class ChangeError(ValueError):
    """A change of a setting can't be understood; the message says how to write it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting with its new value; None takes it out."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}={yaml.safe_dump(self.value, default_flow_style=True).split(chr(10))[0]}"


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy under comparison. `remarks` say what of it a replay leaves out."""

    name: str
    terms: ReplayTerms
    gpu: GpuRental
    remarks: tuple[str, ...] = ()


def policy_of(name: str, loaded: Loaded, today: date, cloud: CloudModel) -> NamedPolicy:
    """Return the policy of a configuration with the prices of a UTC day. Raises ConfigError with every problem."""
    settings, assembly = loaded.settings, assembly_of(loaded, today)
    remarks = [str(problem) for problem in assembly.disabled]
    if any(rule.when.complexity is not None or rule.when.languages for rule in assembly.rules.rules):
        remarks.append("its rules by complexity or language hold for no request that has none on record")
    if assembly.policy.gpu_busy_above is not None:
        remarks.append("no GPU is too busy for its rule on utilisation")
    confidences = [assembly.policy.confidence, *(rule.confidence for rule in assembly.rules.rules)]
    if any(one is not None and one.step_thresholds for one in confidences):
        remarks.append("the first step of an escalation answers, however sure it is")
    if pacing_rules(settings, assembly).lines:
        remarks.append("its budgets are kept, but not paced")
    if not settings.gpu.price_known and any(backend.local for backend in assembly.backends):
        remarks.append("the price of its GPU is unknown (gpu.price_per_hour), so its rent is left out")
    terms = ReplayTerms(
        policy=assembly.policy,
        rules=assembly.rules,
        rates=assembly.rates,
        budgets=budget_lines(settings),
        cloud=cloud,
    )
    return NamedPolicy(name, terms, GpuRental(settings.gpu.hourly, settings.gpu.count), tuple(remarks))


def file_policy(present: Loaded, file: Path) -> Loaded:
    """Return the configuration of a file, completed by the present one where it is a part. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([ConfigProblem(str(file), 0, f"can't be read: {error}")]) from None
    whole = text if _sections(text) is None else text + _rest(present.text, text)
    # What the present configuration adds counts from its folder, as it does there.
    folder = file if whole == text else (present.path or file)
    return _loaded(present, whole, folder, file)


def changed(base: Loaded, changes: Sequence[Change]) -> Loaded:
    """Return a configuration with some settings changed. Raises ConfigError and ChangeError."""
    data = yaml.safe_load(base.text) or {}
    for change in changes:
        _apply(data, change)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    try:
        return _loaded(base, text, base.path, base.path)
    except ConfigError as error:  # the lines are those of this text, which nobody sees
        raise ConfigError([replace(problem, line=0) for problem in error.problems]) from None


def change_of(text: str) -> Change:
    """Return the change that `setting=value` means, with the value in YAML. Raises ChangeError."""
    setting, equals, value = text.partition("=")
    path = tuple(part.strip() for part in setting.split("."))
    if not equals or not all(path):
        raise ChangeError(f"{text!r} is no change; write it like slo.ttft_ms=3000")
    try:
        return Change(path, yaml.safe_load(value))
    except yaml.YAMLError:
        raise ChangeError(f"{value!r} is no value in YAML; write it like slo.ttft_ms=3000") from None


def sweep_of(text: str) -> tuple[Change, ...]:
    """Return the changes that `setting=from:to:step` means, both ends included. Raises ChangeError."""
    change = text.partition("=")[0]
    ends = text.partition("=")[2].split(":")
    try:
        if not text.isascii() or "_" in text:
            raise ValueError(text)
        first, last, step = (Decimal(end) for end in ends)
        count = (last - first) / step
        whole = int(count) + 1
    except (InvalidOperation, ValueError, OverflowError):
        raise ChangeError(f"{text!r} is no sweep; write it like slo.ttft_ms=500:3000:500") from None
    if not 1 <= whole <= MOST_VALUES:
        raise ChangeError(f"{text!r} has no value or more than {MOST_VALUES}; change its ends or its step")
    path = change_of(f"{change}=0").path
    return tuple(Change(path, _plain(first + number * step)) for number in range(whole))


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _loaded(present: Loaded, text: str, folder_of: Path | None, path: Path | None) -> Loaded:
    settings = config.parse(text, present.environment)
    folder = Path.cwd() if folder_of is None else folder_of.absolute().parent
    loaded = Loaded(settings.with_paths_from(folder), path, text, present.environment)
    return loaded if present.serving is None else loaded.served_by(present.serving)


def _sections(text: str) -> frozenset[str] | None:
    """Return the sections of a part of a configuration; None for a whole one, and for a text that is no mapping."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return frozenset(data) if isinstance(data, dict) and "backends" not in data else None


def _rest(present: str, part: str) -> str:
    """Return the sections of the present configuration that a part leaves out, as text to follow it."""
    own = _sections(part) or frozenset()
    data = yaml.safe_load(present) or {}
    rest = {name: value for name, value in data.items() if name not in own}
    return "\n" + yaml.safe_dump(rest, sort_keys=False, allow_unicode=True) if rest else ""


def _apply(data: Any, change: Change) -> None:
    """Change one setting in place."""
    where = data
    for part in change.path[:-1]:
        where = _entry(where, part, change)
    last = change.path[-1]
    if isinstance(where, list):
        place = _place(where, last, change)
        where[place : place + 1] = [] if change.value is None else [change.value]
    elif isinstance(where, dict):
        if change.value is None:
            where.pop(last, None)
        else:
            where[last] = change.value
    else:
        raise ChangeError(f"{'.'.join(change.path)}: there is no such setting to change")


def _entry(where: Any, part: str, change: Change) -> Any:
    if isinstance(where, list):
        return where[_place(where, part, change)]
    if isinstance(where, dict):
        if where.get(part) is None:
            where[part] = {}
        return where[part]
    raise ChangeError(f"{'.'.join(change.path)}: there is no such setting to change")


def _place(entries: list[Any], part: str, change: Change) -> int:
    names = [str(entry.get("name")) if isinstance(entry, dict) else "" for entry in entries]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(entries):
        return int(part)
    has = ", ".join(name for name in names if name) or f"0 to {len(entries) - 1}"
    raise ChangeError(f"{'.'.join(change.path)}: nothing there is called {part!r}; use one of {has}")
