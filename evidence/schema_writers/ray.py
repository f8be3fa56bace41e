"""Print the JSON schemas of what Ray Serve's API takes and answers."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

WANTED = ("ServeInstanceDetails", "ServeDeploySchema", "ScaleDeploymentRequest")


def bare(value: Any, in_names: bool = False) -> Any:
    """Return a schema without its prose. `in_names`: its keys are names of fields, of which none is prose."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if in_names or name != "description"}
        return {name: bare(inner, name == "properties" and not in_names) for name, inner in kept.items()}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def main() -> int:
    """Print them."""
    schemas = importlib.import_module("ray.serve.schema")
    print(json.dumps({name: bare(getattr(schemas, name).model_json_schema()) for name in WANTED}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
