"""The settings of the fleet."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spillway_router.config.part import Part
from spillway_router.core.fleet.scaler import FleetTerms

GPUS = "{gpus}"
"""Where the number of GPUs stands in the arguments of `fleet.command`."""


class FleetPart(Part):
    """How many GPUs there may be, what one costs, and how their number is set (`spillway fleet`).

    The number stays within `min` and `max`. A start takes `cold_start_s`, and a rental is billed for `minimum_rental_s`
    at least. A GPU costs `price_per_hour`, by default `gpu.price_per_hour`; a spot machine is taken away
    `losses_per_hour` times. `trust` below 1 lets forecasts from the same hours of the weeks before move the moment, for
    a weaker guarantee. `stop: true` is the kill switch: the number stays as it is.

    `target: command` runs `command`, in whose arguments {gpus} is the number. `target: kubernetes` scales the
    deployment `deployment` in `namespace` by kubectl. `target: sky` updates the SkyPilot service `service` with the
    YAML `service_file`, and `target: ray` sets the replicas of `ray_deployment` in the Ray Serve application
    `application` by the dashboard at `ray_api`.

    With `every_s` the router sets the number itself, that often; while the file `stop_file` exists it does not. With
    `rentals: true` each of these GPUs then is a rental on the books, named fleet-1 and so on: set `gpu.count: 0`,
    unless the router's own machine has a GPU beside them.
    """

    min: int = Field(0, ge=0, le=1024)
    max: int = Field(ge=0, le=1024)
    target: Literal["command", "kubernetes", "sky", "ray"] = "command"
    command: tuple[str, ...] = ()
    deployment: str = Field("", max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    namespace: str = Field("default", max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    service: str = Field("", max_length=63, pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$")
    service_file: Path | None = None
    application: str = Field("", max_length=200)
    ray_deployment: str = Field("Engine", min_length=1, max_length=200)
    ray_api: str = Field("http://127.0.0.1:8265", max_length=2048, pattern=r"^https?://[^\s@]+$")
    every_s: float = Field(0, ge=0, le=86_400)
    stop_file: Path | None = None
    rentals: bool = False
    price_per_hour: Annotated[Decimal, Field(gt=0, le=10**6)] | None = None
    cold_start_s: float = Field(600, gt=0, le=86_400)
    minimum_rental_s: float = Field(0, ge=0, le=2_678_400)
    losses_per_hour: float = Field(0, ge=0, le=60)
    trust: float = Field(1, gt=0.5, le=1)
    stop: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max {self.max}; max must be at least min")
        if 0 < self.every_s < 60:
            raise ValueError(
                f"every_s is {self.every_s:g}; the rule goes by steps of 300 s, so write at least 60, or 0 for never"
            )
        if self.command and not any(GPUS in argument for argument in self.command):
            raise ValueError(f"write {GPUS} in the arguments of command, where the number of GPUs belongs")
        return self

    def with_paths(self, placed: Callable[[Path], Path]) -> Self:
        """Return the fleet with the paths of its files as `placed` makes them."""
        files = {"service_file": self.service_file, "stop_file": self.stop_file}
        return self.model_copy(update={name: placed(file) for name, file in files.items() if file is not None})

    def terms(self, usd_per_hour: Decimal) -> FleetTerms:
        """Return the terms of the scaler for GPUs at this price."""
        return FleetTerms(
            rent_nano_per_s=float(usd_per_hour) * 1e9 / 3600,
            cold_start_s=self.cold_start_s,
            minimum_rental_s=self.minimum_rental_s,
            losses_per_hour=self.losses_per_hour,
            least=self.min,
            most=self.max,
            trust=self.trust,
            stopped=self.stop,
        )

    def arguments(self, gpus: int) -> tuple[str, ...]:
        """Return the command line that sets the number of GPUs; empty if the target lacks what it needs."""
        if self.target == "kubernetes":
            scale = ("kubectl", "scale", f"deployment/{self.deployment}", f"--replicas={gpus}")
            return (*scale, "--namespace", self.namespace) if self.deployment else ()
        return tuple(argument.replace(GPUS, str(gpus)) for argument in self.command)
