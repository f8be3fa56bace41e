"""The memory arithmetic of an engine: what weights and overhead take, and how many tokens the KV cache holds.

KV bytes = device memory x share - weights - overhead, on every device of an engine. vLLM cuts them into blocks of whole
layers; layers that keep only a window share the same blocks (vLLM 0.32, v1/core/kv_cache_utils.py). Its own figure, and
this one, is the longest request times the number of such requests that the blocks hold. The overhead (activations, CUDA
graphs, allocator) was observed between 1.2 GiB at 2048 batched tokens and 3 GiB at 8192; between them it is assumed to
be linear.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.planning.shapes import DTYPE_BYTES, GIB, ModelShape

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
    """The inputs of the arithmetic: bytes per device, the share that vLLM may take, the batch, the mean request, the
    longest request and one KV block in tokens, the KV element size in bytes. `split` devices share a model, of which
    `tensor` split every layer, in each of `engines`. `steps_in_flight` is the batches that vLLM has under way at once;
    `kv_bytes` sets the KV cache of a device instead of deriving it."""

    device_bytes: int
    share: float
    batched_tokens: int
    kv_element_bytes: int
    mean_tokens: int
    max_model_len: int
    block_tokens: int = 16
    split: int = 1
    tensor: int = 1
    engines: int = 1
    steps_in_flight: int = 2
    kv_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The result: rows to show, the KV capacity of one engine in tokens (0 when weights and overhead don't fit), and
    the bytes that are missing for them."""

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


def kv_tokens(shape: ModelShape, kv_bytes: int, budget: Budget) -> int:
    """Return the tokens that a KV cache of `kv_bytes` per device holds, as vLLM reports them at its start.

    With windows, a long request needs whole blocks for its full layers and few for the others, so that the figure
    depends on the longest request.
    """
    block = budget.block_tokens
    page = block * shape.kv_elements(budget.tensor) * budget.kv_element_bytes
    longest = budget.max_model_len
    full = -(-longest // block)
    in_window = min(shape.window - 1 + budget.steps_in_flight * budget.batched_tokens, longest)
    windowed = -(-in_window // block) + 1
    layers = max(shape.layers * budget.tensor // budget.split, 1)
    sliding = min(shape.sliding * budget.tensor // budget.split, layers)
    size, groups = _groups(layers - sliding, sliding)
    blocks = max(kv_bytes, 0) // page // size
    per_request = groups[0] * full + groups[1] * windowed
    return int(blocks / per_request * longest)


def _groups(full: int, sliding: int) -> tuple[int, tuple[int, int]]:
    """Return the layers of one group, and the number of groups of full and of windowed layers.

    vLLM makes groups of equal size: as many layers as the rarer kind has, or as the commoner kind where it has less
    than half as many again.
    """
    if not sliding or not full:
        return full + sliding, (1, 0) if full else (0, 1)
    size = min(full, sliding)
    if max(full, sliding) < size * 1.5:
        size = max(full, sliding)
    return size, (-(-full // size), -(-sliding // size))


def arithmetic(shape: ModelShape, weight_bytes: int, budget: Budget) -> MemoryPlan:
    """Compute the capacity of an engine; its devices split the weights evenly."""
    devices = budget.split * budget.engines
    total = int(budget.device_bytes * budget.share)
    overhead = overhead_bytes(budget.batched_tokens)
    room = total - -(-weight_bytes // budget.split) - overhead
    kv = room if budget.kv_bytes is None else min(budget.kv_bytes, room)
    tokens = kv_tokens(shape, kv, budget)
    per_token = shape.layers * shape.kv_elements(budget.tensor) * budget.tensor * budget.kv_element_bytes
    times = f" x {devices} devices" if devices > 1 else ""
    copies = f" in each of {budget.engines} engines" if budget.engines > 1 else ""
    kept = "the remaining memory" if budget.kv_bytes is None else "reserved for it"
    share = f"{budget.device_bytes / GIB:.1f} GiB x {budget.share:g}{times}"
    weights = f"{shape.parameters / 1e6:,.4g} million parameters{copies}"
    each = f"{tokens:,} in each engine" if copies else ""
    requests = tokens * budget.engines // budget.mean_tokens
    rows = (
        Row("memory for vLLM", total * devices / GIB, "GiB", share),
        Row("weights", weight_bytes * budget.engines / GIB, "GiB", weights),
        Row("run-time overhead", overhead * devices / GIB, "GiB", f"at {budget.batched_tokens} batched tokens{times}"),
        Row("KV cache", max(kv, 0) * devices / GIB, "GiB", kept),
        Row("KV per token", per_token / 1024, "KiB", _kv_text(shape, budget)),
        Row("KV capacity", tokens * budget.engines, "tokens", each),
        Row("requests that fit", requests, "requests", f"of {budget.mean_tokens} tokens"),
    )
    return MemoryPlan(rows, tokens, max(0, -room) * budget.split)


def _kv_text(shape: ModelShape, budget: Budget) -> str:
    size = budget.kv_element_bytes
    kept = f", {shape.sliding} of them keep {shape.window:,} tokens" if shape.sliding else ""
    if shape.latent:
        copies = f" x {budget.tensor} devices" if budget.tensor > 1 else ""
        return f"{shape.layers} layers{kept} x {shape.latent} (MLA) x {size} bytes{copies}"
    return f"2 x {shape.layers} layers{kept} x {shape.kv_heads} heads x {shape.head_dim} x {size} bytes"
