"""Orders of rented GPUs and the plans that fulfil them, as values: nothing here opens a socket or starts a process.

A target (one file each in this folder) turns a `DeploymentOrder` into a `DeploymentPlan`. A dry run prints the plan,
and perform.py carries out the same values step by step: what was printed is what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar

HOURS_PER_MONTH = 730
"""The 8,760 hours of a year divided by twelve months."""
PORT = 8080
PLACEHOLDER_IMAGE = "REGISTRY/spillway-gpu:0.1.0"
"""What a dry run shows where no image was given."""
STOP_REST_S = 50
"""What a machine takes to stop after the answers in progress: 30 s for the last rows, 20 s for the engine."""
_T = TypeVar("_T")
Run = Callable[[tuple[str, ...], str], str]
"""Runs a program with arguments and standard input, and returns its standard output."""


class DeployError(Exception):
    """A deployment can't continue; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Access:
    """The first API key as the rented machine learns it: its public ID and the SHA-256 of its secret, never the secret
    itself."""

    id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DeploymentOrder:
    """What to rent and what to run on it.

    `gpu` is a name of gpus.yaml; `price_per_hour` is in US dollars per hour of one GPU (the maximum for a bid); `place`
    is where to rent in the target's own terms: data centre, region or namespace; `volume` is an existing network
    volume; `secrets` names environment variables whose values the target keeps; `clouds` are (provider, model) pairs to
    overflow to, which may cost `budget_per_day` US dollars, or whatever they cost if `unlimited`; `yaml` is the
    machine's spillway.yaml (empty: written from the order); `disk_gb` is in GB; `options` are the target's own
    settings; `engine_args` are the arguments for vLLM by which it uses all GPUs; `force` starts a model that the
    machine's own plan would refuse; `loras` maps the names of adapters to where the machine fetches them.
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
    engine_args: tuple[str, ...] = ()
    force: bool = False
    budget_per_day: Decimal | None = None
    unlimited: bool = False
    loras: Mapping[str, str] = field(default_factory=dict)

    @property
    def served_model(self) -> str:
        """Return what clients call the model: of one in an object store the last word of its place."""
        return self.model.rstrip("/").rpartition("/")[2] if self.model.startswith("s3://") else self.model

    @property
    def cuda(self) -> str:
        """Return the lowest CUDA version that the host's driver must support: what the image was built with."""
        return self.options.get("cuda") or ("12.9" if "cu129" in self.image else "13.0")

    @property
    def kind(self) -> Literal["reserved", "interruptible"]:
        """Return the ledger's word for this kind of rental."""
        return "interruptible" if self.interruptible else "reserved"

    @property
    def per_hour(self) -> Decimal:
        """Return US dollars per hour of all GPUs."""
        return self.price_per_hour * self.count

    @property
    def per_month(self) -> Decimal:
        """Return US dollars per month of 730 hours."""
        return self.per_hour * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Save:
    """A value that later steps use as `{name}`, and its path in the JSON answer of this step."""

    name: str
    path: tuple[str | int, ...]


PRICE = "price"
"""The name of the saved value that is the price which the provider answered: US dollars per hour of all GPUs."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the provider's HTTP API. `why` tells people what it does; `path` is relative to the API's base URL."""

    why: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    body: Mapping[str, Any] | None = None
    save: Save | None = None
    price: Save | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run. `standard_input` is passed as text; its output is read as JSON where a value is saved."""

    why: str
    argv: tuple[str, ...]
    standard_input: str = ""
    save: Save | None = None
    price: Save | None = None


Step = Request | Command


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """Steps in order. `handle` identifies what the last step created: a saved value in braces, or a fixed name."""

    target: str
    steps: tuple[Step, ...]
    handle: str
    notes: tuple[str, ...] = ()


SWITCH = "[01]"
NUMBER = "[0-9]{1,6}"
CUDA = r"[0-9]{1,2}\.[0-9]{1,2}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a target accepts, so that an order is refused before it costs money.

    `settings` gives the form of the value of each name of `--set`, as a regular expression; `name` is the form of the
    deployment's name and `place` that of the place; `least_disk_gb` is in GB; `most_characters` bounds the
    configuration in base64 and `most_stop_s` the time that a machine has to stop in, in seconds (None: no bound is
    known). `volume_roots` are where a network volume may be mounted; `mounts_file` says that the configuration is a
    file in a folder that can't be written to.
    """

    settings: Mapping[str, str]
    name: str
    place: str = ".*"
    least_disk_gb: int = 20
    volumes: bool = False
    most_characters: int | None = None
    most_stop_s: int | None = None
    volume_roots: tuple[str, ...] = ()
    mounts_file: bool = False


class DeploymentTarget(Protocol):
    """A place that rents GPUs. All methods are pure and raise `DeployError` for what the target can't do."""

    @property
    def name(self) -> str:
        """The target's name on the command line."""

    @property
    def key_variable(self) -> str:
        """The environment variable with the provider's key; empty where the provider's own program is logged in
        already."""

    @property
    def accepted(self) -> Accepted:
        """What the target accepts."""

    @property
    def serves_when_made(self) -> bool:
        """Whether the plan ends only once the machine serves, so that nobody needs to ask it."""

    @property
    def log_command(self) -> str:
        """The command that shows the log of the machine ID."""

    def address(self, handle: str, run: Run) -> str:
        """Return the root URL of a machine, "" while it has none. Raises `DeployError`."""

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Return the plan that rents the machine and starts Spillway on it."""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Return the plan that releases everything; `handle` identifies what `create` made."""


def gpu_of(names: Mapping[str, _T], order: DeploymentOrder, target: str) -> _T:
    """Return the target's name of the order's GPU. Raises `DeployError` where the target does not rent it."""
    if order.gpu not in names:
        raise DeployError(f"{target} has no {order.gpu}; it has {', '.join(names)}")
    return names[order.gpu]
