"""RunPod's API as its OpenAPI document describes it: runpod/schema.json is a dated excerpt.

`python -m evidence.runpod_schema DOCUMENT` compares the excerpt with a newer document (openapi.json of REST v2, from
the repository runpod/docs) and prints what changed in the part that Spillway relies on, with exit status 1 if something
did. With `--write COMMIT DATE` it writes the excerpt again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parents[1] / "runpod" / "schema.json"
PATHS = (
    "/v2/pods",
    "/v2/pods/{id}",
    "/v2/pods/{id}/action",
    "/v2/pods/{id}/logs",
    "/v2/network-volumes",
    "/v2/templates",
    "/v2/serverless",
    "/v2/serverless/{id}",
)
"""The paths that Spillway calls."""
_PROSE = ("description", "summary", "examples", "example", "tags", "x-enum-varnames", "security")


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


def excerpt(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths that Spillway calls, and every schema that they use, without prose."""
    paths = {path: _bare(document["paths"][path]) for path in PATHS if path in document["paths"]}
    schemas: dict[str, Any] = {}
    pending = list(_references(paths))
    while pending:
        name = pending.pop()
        if name not in schemas:
            schemas[name] = _bare(document["components"]["schemas"][name])
            pending.extend(_references(schemas[name]))
    return {"paths": paths, "components": {"schemas": dict(sorted(schemas.items()))}}


def newest(document: dict[str, Any]) -> dict[str, Any]:
    """Return the excerpt of a whole document, with shared answers and parameters put in their place."""
    return excerpt(_resolved(document))


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Yield the places where two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from differences(before.get(name), after.get(name), f"{where}/{name.replace('/', '~1')}")
    elif before != after:
        yield f"{where}: {json.dumps(before)[:200]} -> {json.dumps(after)[:200]}"


def _bare(value: Any, in_names: bool = False) -> Any:
    """Return a JSON value without prose. `in_names`: its keys are names of fields, of which none is prose."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if in_names or (k not in _PROSE and not k.startswith("x-"))}
        return {name: _bare(inner, name == "properties" and not in_names) for name, inner in kept.items()}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


def _references(value: Any) -> Iterator[str]:
    """Yield the names of the schemas that a value refers to."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
            yield reference.rsplit("/", 1)[-1]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def main(words: Sequence[str]) -> int:
    """Compare, or write the excerpt again."""
    newer = newest(json.loads(Path(words[0]).read_text(encoding="utf-8")))
    kept = json.loads(SCHEMA.read_text(encoding="utf-8"))
    changes = [line for part in ("paths", "components") for line in differences(kept[part], newer[part], part)]
    print("\n".join(changes) or "nothing that Spillway relies on has changed")
    if words[1:2] == ["--write"]:
        commit, day = words[2:]
        said = (
            "Structure only, descriptions and examples left out. Source: api-reference-v2/openapi.json of the "
            f"repository runpod/docs (commit {commit} of {day}), the document behind the pages of api-reference-v2. "
            "`python -m evidence.runpod_schema DOCUMENT` compares it with a newer one."
        )
        info = {"title": "The part of RunPod's REST API v2 that Spillway relies on", "version": "2.0.0"}
        whole = {"openapi": "3.1.0", "info": {**info, "description": said}, "servers": kept["servers"], **newer}
        SCHEMA.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        return 0
    return 1 if changes else 0


def _resolved(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with references to shared answers, headers and parameters put in their place."""

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#/components/schemas/"):
                target: Any = document
                for part in reference.removeprefix("#/").split("/"):
                    target = target[part]
                return put(target)
            return {name: put(inner) for name, inner in value.items() if name != "headers"}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return {**document, "paths": put(document["paths"])}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
