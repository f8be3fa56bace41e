"""Configurations of published models, recorded with their sources, so that a plan needs no network for them.

recorded/models.json maps a hub name to {"source", "config"}, where `config` holds the keys of config.json that a plan
reads, to {"same_as"} with an optional `quantization_config` of its own, and to `gated` where the hub asks for a login.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("recorded") / "models.json"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One model: its configuration, where that was read, and whether its hub repository asks for a login."""

    name: str
    config: Mapping[str, Any]
    source: str
    gated: bool


@cache
def _entries() -> Mapping[str, Mapping[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def names() -> tuple[str, ...]:
    """Return the hub names, in the order of the file."""
    return tuple(_entries())


def find(name: str) -> Recorded | None:
    """Return the record of a hub name, whatever its case; None where there is none."""
    entries = _entries()
    key = name if name in entries else next((one for one in entries if one.lower() == name.lower()), None)
    if key is None:
        return None
    entry = entries[key]
    base = entries[str(entry["same_as"])] if "same_as" in entry else entry
    config = dict(base["config"])
    if "quantization_config" in entry:
        config["quantization_config"] = entry["quantization_config"]
    config |= entry.get("changes", {})
    gated = bool(entry.get("gated", base.get("gated", False) and "same_as" not in entry))
    return Recorded(key, config, str(entry.get("source", base.get("source", ""))), gated)
