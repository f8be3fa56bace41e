"""The memory arithmetic of an engine: what weights and overhead take, and how many tokens the KV cache holds.

KV tokens = (device memory x share - weights - overhead) / KV bytes per token. The overhead (activations, CUDA graphs,
allocator) was observed between 1.2 GiB at 2048 batched tokens and 3 GiB at 8192; between them it is assumed to be
linear.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.planning.models import DTYPE_BYTES, GIB, ModelShape

# The mean request of the Azure 2023 conversation trace: 1155 prompt tokens and 211 of output.
MEAN_TOKENS = 1366


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the arithmetic: its label, the number, the unit, and how the number came about."""

    label: str
    value: float
    unit: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """The inputs of the arithmetic: bytes per device, the share that vLLM may take, the number of devices, the batch in
    tokens, the KV element size in bytes, and the mean request in tokens. `kv_bytes` sets the KV cache instead of
    deriving it."""

    device_bytes: int
    share: float
    devices: int
    batched_tokens: int
    kv_element_bytes: int
    mean_tokens: int
    kv_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The result: rows to show, the KV capacity in tokens (negative when weights and overhead don't fit), and the bytes
    that are missing for them."""

    rows: tuple[Row, ...]
    kv_tokens: int
    missing_bytes: int


def overhead_bytes(batched_tokens: int) -> int:
    """Return the run-time overhead per device in bytes for a batch of this many tokens."""
    position = min(max((batched_tokens - 2048) / 6144, 0.0), 1.0)
    return int((1.2 + 1.8 * position) * GIB)


def dtype_bytes(dtype: str) -> int:
    """Return the bytes per number of a type, as vLLM or a checkpoint names it; 2 for an unknown one."""
    return DTYPE_BYTES.get({"half": "float16", "float": "float32"}.get(dtype, dtype), 2)


def element_bytes(kv_dtype: str, dtype: str) -> int:
    """Return the bytes per KV element: 1 for fp8 and int8 caches, else the model's own size."""
    if kv_dtype.startswith(("fp8", "int8")):
        return 1
    return dtype_bytes(dtype)


def arithmetic(shape: ModelShape, weight_bytes: int, budget: Budget) -> MemoryPlan:
    """Compute the capacity; tensor parallelism splits weights and KV evenly over the devices."""
    total = int(budget.device_bytes * budget.share) * budget.devices
    overhead = overhead_bytes(budget.batched_tokens) * budget.devices
    per_token = shape.kv_bytes_per_token(budget.kv_element_bytes)
    room = total - weight_bytes - overhead
    kv = room if budget.kv_bytes is None else min(budget.kv_bytes, room)
    tokens = kv // per_token
    devices = f" x {budget.devices} devices" if budget.devices > 1 else ""
    rows = (
        Row("memory for vLLM", total / GIB, "GiB", f"{budget.device_bytes / GIB:.1f} GiB x {budget.share:g}{devices}"),
        Row("weights", weight_bytes / GIB, "GiB", f"{shape.parameters / 1e6:,.4g} million parameters"),
        Row("run-time overhead", overhead / GIB, "GiB", f"at {budget.batched_tokens} batched tokens{devices}"),
        Row(
            "KV cache",
            max(kv, 0) / GIB,
            "GiB",
            "the remaining memory" if budget.kv_bytes is None else "reserved for it",
        ),
        Row(
            "KV per token",
            per_token / 1024,
            "KiB",
            f"2 x {shape.layers} layers x {shape.kv_heads} heads x {shape.head_dim} x {budget.kv_element_bytes} bytes",
        ),
        Row("KV capacity", max(tokens, 0), "tokens"),
        Row("requests that fit", max(tokens, 0) // budget.mean_tokens, "requests", f"of {budget.mean_tokens} tokens"),
    )
    return MemoryPlan(rows, tokens, max(0, -room))
