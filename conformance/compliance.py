"""The report that Open Responses' test runner and its relatives print: one JSON object with a list of results."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

from conformance.model import Case, NotRunError
from conformance.pytest_runs import one_line


def read_report(ended: CompletedProcess[str], prefix: str = "") -> tuple[Case, ...]:
    """Return a case for each result in the output of a runner, named by its id behind `prefix`.

    Raises:
        NotRunError: the runner printed no report.
    """
    try:
        results = json.loads(ended.stdout[ended.stdout.index("{") :])["results"]
    except (KeyError, ValueError):
        raise NotRunError(f"the runner ended with status {ended.returncode}: {one_line(ended.stderr)}") from None
    return tuple(
        Case(f"{prefix}{result['id']}", result["status"], one_line(" ".join(result.get("errors") or [])))
        for result in results
    )
