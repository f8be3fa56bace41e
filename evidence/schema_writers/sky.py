"""Print the JSON schemas of SkyPilot's tasks, resources and services."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> int:
    """Print them."""
    schemas = importlib.import_module("sky.utils.schemas")
    wanted = ("task", "resources", "service")
    print(json.dumps({name: getattr(schemas, f"get_{name}_schema")() for name in wanted}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
