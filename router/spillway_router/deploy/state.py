"""The list of deployments that were made from here: a small JSON file next to the ledger, without secrets.

It lets `--destroy` work without an ID and find the rental that it ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from spillway_router.deploy.order import DeployError


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, running or stopped: its handle at the target, its rental in the ledger (empty: none is running),
    and the terms of a new rental. `price_per_hour` is in US dollars per hour of one GPU, as decimal text."""

    target: str
    handle: str
    rental: str
    gpu: str
    count: int
    price_per_hour: str
    kind: str
    place: str = ""

    @property
    def machine(self) -> str:
        """The deployment's name in the ledger: its handle, which on AWS is unique in its region only."""
        return f"{self.place}/{self.handle}" if self.target == "aws" and self.place else self.handle


class Deployments:
    """The list in its file; every change rewrites the file atomically."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> tuple[Deployment, ...]:
        """Return the deployments, oldest first. Raises `DeployError` for a file that can't be read."""
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            return tuple(Deployment(**row) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError) as error:
            raise DeployError(f"{self._file} can't be read ({error}); repair or remove it") from error

    def find(self, target: str, handle: str) -> Deployment:
        """Return the deployment with this handle, or the target's only one if the handle is empty.

        A handle that is not in the list is taken as a deployment without a rental. Raises `DeployError` where an empty
        handle is ambiguous, or nothing was deployed.
        """
        rows = [row for row in self.all() if row.target == target]
        matching = [row for row in rows if row.handle == handle] if handle else rows
        if len(matching) == 1:
            return matching[0]
        if handle:
            return Deployment(
                target=target, handle=handle, rental="", gpu="", count=0, price_per_hour="0", kind="reserved"
            )
        if not rows:
            raise DeployError(f"nothing was deployed on {target} from here; give the ID of what to release")
        raise DeployError(f"several were deployed on {target} from here: {', '.join(r.handle for r in rows)}; name one")

    def put(self, deployment: Deployment) -> None:
        """Add a deployment, or replace the one with its handle."""
        others = [row for row in self.all() if (row.target, row.handle) != (deployment.target, deployment.handle)]
        self._write([*others, deployment])

    def remove(self, target: str, handle: str) -> None:
        """Remove a deployment from the list."""
        self._write([row for row in self.all() if (row.target, row.handle) != (target, handle)])

    def _write(self, rows: Iterable[Deployment]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self._file)
