"""Print the JSON schemas of what Ray Serve's API takes and answers."""

from __future__ import annotations

import importlib
import json
import sys

WANTED = ("ServeInstanceDetails", "ServeDeploySchema", "ScaleDeploymentRequest")


def main() -> int:
    """Print them."""
    schemas = importlib.import_module("ray.serve.schema")
    print(json.dumps({name: getattr(schemas, name).model_json_schema() for name in WANTED}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
