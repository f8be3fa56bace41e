"""Reads the YAML tables beside this file: the catalogue, whose fault an error is, and what a hold bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from spillway_router.providers.interface import ProviderError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader where PyYAML was built with it. Python's own takes ten times as long for a table of 1,000 lines."""


def read_table(path: Path) -> Any:
    """Return the content of a table. Raises ProviderError if it can't be read or is no YAML."""
    try:
        return yaml.load(path.read_bytes(), _LOADER)  # noqa: S506 - both loaders are safe ones
    except (OSError, yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError) as error:
        raise ProviderError(f"{path}: not a usable table: {error}") from None
