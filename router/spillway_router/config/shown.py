"""The settings in force as people may see them: every secret hidden."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import BaseModel

from spillway_router.core.redaction import HIDDEN

_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")


def shown_settings(part: BaseModel, *, whole: bool) -> dict[str, Any]:
    """Return settings as JSON values, those that the settings hide from messages as `***`."""
    values: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if not whole and name not in part.model_fields_set:
            continue
        shown = HIDDEN if not field.repr and value else _shown(value, whole)
        if whole or shown != {}:  # relative paths of a part are made absolute, which sets it though nobody did
            values[name] = shown
    return values


def _shown(value: Any, whole: bool) -> Any:
    if isinstance(value, BaseModel):
        return shown_settings(value, whole=whole)
    if isinstance(value, tuple | list):
        return [_shown(one, whole) for one in value]
    if isinstance(value, frozenset | set):
        return sorted(_shown(one, whole) for one in value)
    if hasattr(value, "items"):
        return {str(name): _shown(one, whole) for name, one in value.items()}
    if isinstance(value, bool | int | float) or value is None:
        return value
    return _PASSWORD.sub(rf"\1{HIDDEN}@", str(value))


def settings_yaml(values: dict[str, Any]) -> str:
    """Return settings as YAML text."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120) if values else ""
