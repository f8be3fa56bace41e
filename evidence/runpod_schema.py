"""RunPod's API as its OpenAPI document describes it (runpod/schema.json, an excerpt)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parents[1] / "runpod" / "schema.json"


class Schema:
    """The excerpt of RunPod's OpenAPI document."""

    def __init__(self) -> None:
        self.document = json.loads(SCHEMA.read_text(encoding="utf-8"))

    def errors(self, name: str, value: Any) -> list[str]:
        """What of a value breaks the schema of this name."""
        schema = {"$ref": f"#/components/schemas/{name}", "components": self.document["components"]}
        return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(value)]

    def operation(self, method: str, path: str) -> tuple[dict[str, Any], str] | None:
        """The operation of a path and the id in the path; None for an unknown path."""
        for pattern, methods in self.document["paths"].items():
            wanted, given = pattern.split("/"), path.split("/")
            if len(wanted) == len(given) and method.lower() in methods:
                pairs = list(zip(wanted, given, strict=True))
                if all(w == g or w == "{id}" for w, g in pairs):
                    return methods[method.lower()], next((g for w, g in pairs if w == "{id}"), "")
        return None
