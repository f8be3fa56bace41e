"""What was deployed from here: a small JSON file beside the ledger, so that `--destroy` needs no id and finds the
rental that it ends. No secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from spillway_router.deploy.order import DeployError


@dataclass(frozen=True, slots=True)
class Deployment:
    """One thing that runs, or is stopped: its handle at the target, the rental in the ledger (empty: none runs), and
    what a new rental would be: price in US dollars per hour of one GPU as decimal text."""

    target: str
    handle: str
    rental: str
    gpu: str
    count: int
    price_per_hour: str
    kind: str
    place: str = ""


class Deployments:
    """The file; every change is written whole and atomically."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> tuple[Deployment, ...]:
        """Oldest first. Raises DeployError for a file that can't be read."""
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            return tuple(Deployment(**row) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError) as error:
            raise DeployError(
                f"{self._file} can't be read ({error}); mend it, or name the id after --destroy"
            ) from error

    def find(self, target: str, handle: str) -> Deployment:
        """The one with this handle, or the target's only one. Raises DeployError where that is not one."""
        rows = [row for row in self.all() if row.target == target]
        found = [row for row in rows if row.handle == handle] if handle else rows
        if len(found) == 1:
            return found[0]
        if handle:
            return Deployment(target, handle, "", "", 0, "0", "reserved")
        known = ", ".join(row.handle for row in rows) or "none"
        raise DeployError(f"name one: on {target} there are {known} that were deployed from here")

    def put(self, deployment: Deployment) -> None:
        """Add it, or replace the one with its handle."""
        others = [row for row in self.all() if (row.target, row.handle) != (deployment.target, deployment.handle)]
        self._write([*others, deployment])

    def remove(self, target: str, handle: str) -> None:
        """Forget it."""
        self._write([row for row in self.all() if (row.target, row.handle) != (target, handle)])

    def _write(self, rows: Iterable[Deployment]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self._file)
