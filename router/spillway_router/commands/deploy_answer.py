"""What `spillway deploy` says of a machine that it rented, as text or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from spillway_router.deploy.order import DeploymentOrder, DeploymentPlan


@dataclass(slots=True)
class DeployAnswer:
    """A rented machine by its `handle`, and its first API key ("" for none).

    What is learnt later is filled in: the ID of its rental ("" for none here), whether it serves (None: nobody asked),
    and its root URL.
    """

    handle: str
    token: str
    plan: DeploymentPlan
    order: DeploymentOrder
    rental: str = ""
    is_ready: bool | None = None
    url: str = ""

    @contextmanager
    def printed(self, as_json: bool) -> Iterator[None]:
        """Print the answer: text before the block, since it may wait for minutes, and JSON after it, also where the
        block ends the command or is interrupted. The machine runs by then, and its key is shown only here."""
        if not as_json:
            self._print_text()
        try:
            yield
        finally:
            if as_json:
                typer.echo(json.dumps(self.values(), indent=2))

    def values(self) -> dict[str, Any]:
        """Return the answer as data; money is decimal text, and null stands for what is not there or not known."""
        return {
            "target": self.plan.target,
            "handle": self.handle,
            "key": self.token or None,
            "rental": self.rental or None,
            "ready": self.is_ready,
            "url": f"{self.url}/v1" if self.url else None,
            "per_hour_usd": f"{self.order.per_hour:f}",
            "per_month_usd": f"{self.order.per_month:f}",
            "notes": list(self.plan.notes),
        }

    def _print_text(self) -> None:
        target = self.plan.target
        typer.echo(f"created {self.handle}; release it with: spillway deploy {target} {self.handle} --destroy")
        for note in self.plan.notes:
            typer.echo(f"note  {note}")
        if self.token:
            typer.echo(f"key   {self.token}\nSave the key now: it is not stored and not shown again.")
