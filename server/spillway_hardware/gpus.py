"""Read gpus.yaml, the table of the GPUs that Spillway knows. The file explains its fields and their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

FILE = Path(__file__).with_name("gpus.yaml")
BASE = "a100-80"
"""The GPU that work coefficients and speed estimates of all others are scaled from."""
_MIB = 1024**2
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnknownGpuError(ValueError):
    """The table has no GPU of that name; the message lists the names that it has."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What vLLM is started with: tokens, sequences, requests and the share of memory, under vLLM's own names."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    utilisation: float
    queue_limit: int
    kv_dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class RunPodNames:
    """RunPod's names of a GPU: the type of a pod's GPU, and the pool of a serverless endpoint without the other types
    that are in it."""

    id: str
    pool: str
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetNames:
    """What each deployment target calls a GPU; None, or empty, where the target does not rent it.

    `sky` is an accelerator of SkyPilot, `vast` is a part of a search query, `aws` maps a number of GPUs to an instance
    type, `kubernetes` lists node labels.
    """

    runpod: RunPodNames | None
    vast: str | None
    aws: Mapping[int, str]
    kubernetes: tuple[str, ...]
    sky: str | None = None


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One entry of the table: memory in bytes, dense FP16 tensor TFLOPS, memory bandwidth in GB/s."""

    name: str
    title: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    tflops: int
    bandwidth_gb_s: int
    limits: EngineLimits
    targets: TargetNames
    aliases: tuple[str, ...] = ()


def read_table(text: str) -> Mapping[str, GpuModel]:
    """Read the text of a gpus.yaml.

    Raises `KeyError`, `TypeError` or `ValueError` for an entry that lacks a field or has one too many.
    """
    entries: dict[str, dict[str, Any]] = yaml.load(text, _LOADER)  # noqa: S506 - both loaders are safe ones
    return MappingProxyType({name: _model(name, entry) for name, entry in entries.items()})


def _model(name: str, entry: Mapping[str, Any]) -> GpuModel:
    fields = {key: value for key, value in entry.items() if key not in ("memory_mib", "limits", "targets")}
    major, minor = entry["compute_capability"]
    fields |= {"compute_capability": (major, minor), "aliases": tuple(entry.get("aliases", ()))}
    return GpuModel(
        name=name,
        memory_bytes=entry["memory_mib"] * _MIB,
        limits=EngineLimits(**entry["limits"]),
        targets=_targets(**entry["targets"]),
        **fields,
    )


def _runpod_names(id: str, pool: str, excluded: Sequence[str] = ()) -> RunPodNames:
    return RunPodNames(id=id, pool=pool, excluded=tuple(excluded))


def _targets(
    runpod: Mapping[str, str] | None = None,
    vast: str | None = None,
    aws: Mapping[int, str] = MappingProxyType({}),
    kubernetes: tuple[str, ...] = (),
    sky: str | None = None,
) -> TargetNames:
    return TargetNames(
        runpod=None if runpod is None else _runpod_names(**runpod),
        vast=vast,
        aws=MappingProxyType(dict(aws)),
        kubernetes=tuple(kubernetes),
        sky=sky,
    )


GPUS: Mapping[str, GpuModel] = read_table(FILE.read_text(encoding="utf-8"))
"""The GPUs by name, in the order of the file: oldest and smallest first."""
NAMES: tuple[str, ...] = tuple(GPUS)
_ALIASES = {alias: model.name for model in GPUS.values() for alias in model.aliases}


def gpu(name: str) -> GpuModel:
    """Return the GPU with this name or alias, whatever its case. Raises `UnknownGpuError`."""
    lowercase = name.lower()
    model = GPUS.get(_ALIASES.get(lowercase, lowercase))
    if model is None:
        raise UnknownGpuError(f"GPU {name!r} is not known; use one of {', '.join(NAMES)}")
    return model


def listed(last_word: str = "or") -> str:
    """Return the names as a help text lists them: `t4, l4 or h100`."""
    return f"{', '.join(NAMES[:-1])} {last_word} {NAMES[-1]}"
