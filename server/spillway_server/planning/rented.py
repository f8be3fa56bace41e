"""Whether a model runs on a machine that is still to be rented: the plan that the machine itself will make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from spillway_server.obstacle import Obstacle
from spillway_server.planning import machine as machine_limits
from spillway_server.planning import models
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.machine import Machine
from spillway_server.planning.models import ModelSpec, Sources
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES
from spillway_server.planning.shapes import GIB

HOST_GIB: Mapping[str, int] = MappingProxyType(
    {
        "g4dn.xlarge": 16, "g4dn.12xlarge": 192, "g4dn.metal": 384, "g5.xlarge": 16, "g5.12xlarge": 192,
        "g5.48xlarge": 768, "g6.xlarge": 16, "g6.12xlarge": 192, "g6.48xlarge": 768, "p4d.24xlarge": 1152,
        "p4de.24xlarge": 1152, "p5.48xlarge": 2048,
    }
)  # fmt: skip
"""The memory of AWS' instance types in GiB, from AWS' own list; other targets rent by GPU and name no memory."""


@dataclass(frozen=True, slots=True)
class RentedMachine:
    """What is to be rented: the GPU's name, how many, the disk in GB for image and models, the instance type where the
    target has one, and whether the machine will hold a token for the hub. `vllm_args` are the arguments that somebody
    wrote for it; None: those that use all GPUs are still to be chosen."""

    gpu: str
    gpus: int = 1
    disk_gb: int | None = None
    instance: str = ""
    has_hub_token: bool = True
    vllm_args: tuple[str, ...] | None = None


def rented_hardware(gpu: str, gpus: int) -> Hardware | Obstacle:
    """Return the hardware of a machine that is to be rented."""
    profile = PROFILES.get(gpu)
    if profile is None:
        return Obstacle(f"--gpu {gpu!r} is not known.", f"Use one of {', '.join(PROFILES)}.")
    return Hardware((profile.gpu,) * gpus, 8, 64 * GIB)


def plan_for(rented: RentedMachine, model: str | ModelSpec, sources: Sources) -> EnginePlan | Obstacle:
    """Return the plan of the rented machine, or why the model can't run on it. Notes for the user are its warnings.

    A model that is known already, as one that is brought along, is given by its specification.
    """
    profile = PROFILES.get(rented.gpu)
    if profile is None:
        return Obstacle(f"--gpu {rented.gpu!r} is not known.", f"Use one of {', '.join(PROFILES)}.")
    if isinstance(model, str) and model != "demo" and Path(model).expanduser().exists():
        return Obstacle(
            f"--model {model} is a path on this machine.",
            "Say where to bring it, --to s3://BUCKET/PREFIX or hub:OWNER/NAME, or name a hub's model (owner/name).",
        )
    hardware = Hardware((profile.gpu,) * rented.gpus, 8, 64 * GIB)
    spec = models.resolve(model, hardware, sources) if isinstance(model, str) else model
    if isinstance(spec, Obstacle):
        return spec
    if spec.gated and not rented.has_hub_token and not sources.force:
        return Obstacle(
            f"{spec.location} is gated, and the machine will have no token to fetch it.",
            "Accept its licence on the hub, store your token as a secret of the target, and pass --secret HF_TOKEN.",
        )
    options = PlanOptions(devices=rented.gpus, force=sources.force)
    if rented.vllm_args is not None:
        # By itself the machine gives an engine one device.
        options = replace(options, devices=1, vllm_args=rented.vllm_args)
    plan = make_plan(profile, spec, options)
    if isinstance(plan, Obstacle):
        return plan
    used = plan.layout.devices
    if rented.vllm_args is not None and used != rented.gpus and not (sources.force and used < rented.gpus):
        return _misfit(used, rented.gpus)
    small = machine_limits.obstacle(plan, _machine(rented))
    if small is None:
        return plan
    return replace(plan, warnings=(*plan.warnings, f"forced: {small.reason}")) if sources.force else small


def _misfit(used: int, gpus: int) -> Obstacle:
    """Say that the engine uses more or fewer GPUs than there are."""
    if used > gpus:
        return Obstacle(
            f"the vLLM arguments use {used} GPUs, and {gpus} would be rented.",
            f"Rent {used} (--gpus {used}), or change server.vllm_args.",
        )
    return Obstacle(
        f"the vLLM arguments use {used} of {gpus} GPUs, and all of them cost money.",
        f"Add --tensor-parallel-size or --data-parallel-size to server.vllm_args, or rent {used}: --gpus {used}.",
    )


def _machine(rented: RentedMachine) -> Machine:
    host = HOST_GIB.get(rented.instance)
    disk = None if rented.disk_gb is None else rented.disk_gb * 10**9
    return Machine(disk, None if host is None else host * GIB, holds_image=True)
