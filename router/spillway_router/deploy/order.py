"""What is to be rented, and the steps that rent it. Values only: nothing here opens a socket or starts a process.

A target (one file each beside this one) turns an Order into a Plan. A plan is printed by a dry run and carried out by
perform.py, step by step, from the same values: what was printed is what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar

HOURS_PER_MONTH = 730
"""8,760 hours of a year by twelve months."""
PORT = 8080
_T = TypeVar("_T")


class DeployError(Exception):
    """A deployment can't go on; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Access:
    """The first API key as the rented machine is told it: its public id and the SHA-256 of its secret, never the secret
    itself."""

    id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DeploymentOrder:
    """What to rent and what to run on it.

    `gpu` is a profile's key (t4, a10g, l4, a100-40, a100-80, h100); `price_per_hour` US dollars per hour of one GPU
    (the most to pay, where it is a bid); `place` the target's own word for where: data centre, region, namespace;
    `volume` an existing network volume; `secrets` names of environment variables whose values the target keeps; `yaml`
    the machine's spillway.yaml (empty: written from the order); `disk_gb` in GB.
    """

    gpu: str
    model: str
    price_per_hour: Decimal
    image: str
    name: str = "spillway"
    count: int = 1
    interruptible: bool = False
    disk_gb: int = 80
    place: str = ""
    volume: str = ""
    secrets: tuple[str, ...] = ()
    clouds: tuple[tuple[str, str], ...] = ()
    access: Access | None = None
    yaml: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["reserved", "interruptible"]:
        """As the ledger calls it."""
        return "interruptible" if self.interruptible else "reserved"

    @property
    def per_hour(self) -> Decimal:
        """US dollars per hour of all GPUs."""
        return self.price_per_hour * self.count

    @property
    def per_month(self) -> Decimal:
        """US dollars per month of 730 hours."""
        return self.per_hour * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Save:
    """A value that later steps name as `{name}`: where it stands in the JSON answer of this one."""

    name: str
    path: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the provider's HTTP API. `path` is relative to its base URL."""

    why: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    body: Mapping[str, Any] | None = None
    save: Save | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run. `standard_input` is given to it as text; its answer is read as JSON where a value is saved."""

    why: str
    argv: tuple[str, ...]
    standard_input: str = ""
    save: Save | None = None


Step = Request | Command


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """Steps in order. `handle` names what the last of them made: a saved value in braces, or a fixed name."""

    target: str
    steps: tuple[Step, ...]
    handle: str
    notes: tuple[str, ...] = ()


class DeploymentTarget(Protocol):
    """A place that rents GPUs. All methods are pure and raise DeployError for what the target can't do."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def key_variable(self) -> str:
        """Environment variable with the provider's key; empty where its own program is logged in already."""

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Rent and start."""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Give everything back; `handle` is what `create` ended with."""


def gpu_of(known: Mapping[str, _T], order: DeploymentOrder, target: str) -> _T:
    """What the target calls the order's GPU, or has of it. Raises DeployError where it has none."""
    if order.gpu not in known:
        raise DeployError(f"{target} has no {order.gpu}; it has {', '.join(known)}")
    return known[order.gpu]
