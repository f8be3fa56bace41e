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
    and the terms of a new rental. `price_per_hour` is in US dollars per hour of one GPU, as decimal text.

    A handle is unique in its `place` on AWS, and in its cluster on Kubernetes: `context` is the one that was named,
    `cluster` the one that was used, empty where neither is known.
    """

    target: str
    handle: str
    rental: str
    gpu: str
    count: int
    price_per_hour: str
    kind: str
    place: str = ""
    context: str = ""
    cluster: str = ""

    @property
    def machine(self) -> str:
        """The deployment's name in the ledger: its handle, with the region or the context in which it is unique."""
        if self.target == "kubernetes" and self.context:
            return f"{self.context}:{self.handle}"
        return f"{self.place}/{self.handle}" if self.target == "aws" and self.place else self.handle

    @property
    def scope(self) -> str:
        """Where the handle is unique: the region on AWS, the context on Kubernetes; empty if that is not known."""
        return self.place if self.target == "aws" else self.context

    def is_same(self, other: Deployment) -> bool:
        """Return whether both are one deployment. One without a scope was made before scopes were noted."""
        if (self.target, self.handle) != (other.target, other.handle):
            return False
        return self.scope == other.scope or not self.scope or not other.scope


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

    def find(self, target: str, handle: str, scope: str = "") -> Deployment:
        """Return the deployment with this handle, or the target's only one if the handle is empty. `scope` is a region
        of AWS or a context of Kubernetes, to which the search is limited.

        A handle that is not in the list is taken as a deployment without a rental. Raises `DeployError` where it is
        ambiguous, or nothing was deployed.
        """
        rows = [row for row in self.all() if row.target == target and (not scope or row.scope in ("", scope))]
        matching = [row for row in rows if row.handle == handle] if handle else rows
        if len(matching) == 1:
            return matching[0]
        if handle and not matching:
            place, context = (scope, "") if target == "aws" else ("", scope)
            return Deployment(
                target=target,
                handle=handle,
                rental="",
                gpu="",
                count=0,
                price_per_hour="0",
                kind="reserved",
                place=place,
                context=context,
                cluster=context,
            )
        if not rows:
            raise DeployError(f"nothing was deployed on {target} from here; give the ID of what to release")
        names = ", ".join(f"{row.handle} ({row.scope})" if row.scope else row.handle for row in matching or rows)
        also = {"aws": ", with its --place", "kubernetes": ", with its --set context=NAME"}.get(target, "")
        raise DeployError(f"several were deployed on {target} from here: {names}; name one{also}")

    def earlier(self, deployment: Deployment) -> Deployment | None:
        """Return what the list holds of the same deployment."""
        return next((row for row in self.all() if row.is_same(deployment)), None)

    def put(self, deployment: Deployment) -> None:
        """Add a deployment, or replace what the list holds of it."""
        self._write([*(row for row in self.all() if not row.is_same(deployment)), deployment])

    def remove(self, deployment: Deployment) -> None:
        """Remove a deployment from the list."""
        self._write([row for row in self.all() if not row.is_same(deployment)])

    def _write(self, rows: Iterable[Deployment]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self._file)
