"""Run h1spec's tests and print a JSON list of `{"section", "name", "passed", "detail"}`.

Usage: h1spec_json.py FOLDER HOST PORT, where FOLDER holds a checkout of h1spec. Its own command prints for people.
"""

from __future__ import annotations

import importlib
import json
import sys


def main(folder: str, host: str, port: str) -> None:
    """Run every section with the strict tests, as `h1spec --strict` does."""
    sys.path.insert(0, folder)
    runner, tests = importlib.import_module("h1spec.runner"), importlib.import_module("h1spec.tests")
    results = []
    for section in tests.SECTIONS:
        for case in section.tests:
            result = runner.run_test(case.name, case.fn, (host, int(port)))
            judged = {"name": result.name, "passed": result.passed, "detail": result.detail}
            results.append({"section": section.name, **judged})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
