"""Write GGUF tensors as a Hugging Face checkpoint: names, order of rows, dequantised values, in resumable shards.

The experts of a layer are one tensor in GGUF, with the experts as its first axis, and matrices of their own in a
checkpoint. llama.cpp stores q and k of the llama architecture and its kin with rotated pairs side by side, while
checkpoints keep the pairs half a head apart, so their rows are reordered. Gemma's norms are stored with 1 added. Values
are decoded by gguf.quants (the Python reference).
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from spillway_server.convert.formats import CHECKPOINT_INSTEAD
from spillway_server.convert.steps import digest
from spillway_server.convert.worker.header import Header
from spillway_server.convert.worker.report import JobError, report_progress

SHARD_BYTES = 2 * 10**9
ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_AFTER = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_GEMMA = {**_PARTS, **_AFTER, "ffn_norm": "pre_feedforward_layernorm"}
_FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_UNFUSED = ("attn_q", "attn_k", "attn_v", "ffn_gate", "attn_q_norm", "attn_k_norm")
_NO_FEED_FORWARD = ("ffn_gate", "ffn_up", "ffn_down")
_ROUTER = {"ffn_gate_inp": "mlp.gate"}
_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_SHARED = {
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
_MIXTRAL = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
}
_NO_HEAD_NORMS = ("attn_q_norm", "attn_k_norm")
# Kept in config.json instead: see header.llama3_scaling and header._rope_scaling.
_SKIPPED = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"}


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file and the GGUF tensors that go into it."""

    name: str
    tensors: tuple[Any, ...]


def parts(family: str) -> dict[str, str]:
    """Return the matrices and norms of one layer: llama.cpp's names, and those of a checkpoint, where `{}` stands for
    the number of an expert."""
    match family:
        case "qwen3moe" | "olmoe":
            return _without(_PARTS, *_NO_FEED_FORWARD) | _ROUTER | _EXPERTS
        case "qwen2moe":
            return _without(_PARTS, *_NO_FEED_FORWARD, *_NO_HEAD_NORMS) | _ROUTER | _EXPERTS | _SHARED
        case "mixtral":
            return _without(_PARTS, *_NO_FEED_FORWARD, *_NO_HEAD_NORMS) | _MIXTRAL
        case "gemma2":
            return {part: name for part, name in _GEMMA.items() if part not in _NO_HEAD_NORMS}
        case "gemma3":
            return _GEMMA
        case "qwen3":
            return _PARTS
        case "olmo2":
            return {part: name for part, name in {**_PARTS, **_AFTER}.items() if part not in ("attn_norm", "ffn_norm")}
        case "phi3":
            return {part: name for part, name in _PARTS.items() if part not in _UNFUSED} | _FUSED
    return {part: name for part, name in _PARTS.items() if part not in _NO_HEAD_NORMS}


def _without(named: dict[str, str], *left_out: str) -> dict[str, str]:
    return {part: name for part, name in named.items() if part not in left_out}


def is_skipped(name: str) -> bool:
    """Return whether a tensor is kept in config.json instead."""
    return name in _SKIPPED


def checkpoint_name(name: str, family: str = "qwen3") -> str:
    """Translate `blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`. The name of experts keeps `{}` for
    their number. Raises `JobError` for unknown tensors."""
    if name in _WHOLE:
        return _WHOLE[name]
    words, of_layer = name.split("."), parts(family)
    if len(words) == 4 and words[0] == "blk" and words[2] in of_layer:
        return f"model.layers.{words[1]}.{of_layer[words[2]]}.{words[3]}"
    raise JobError(
        f"the GGUF file has a tensor that is unknown to this architecture: {name}.",
        CHECKPOINT_INSTEAD,
    )


def natural_dtype(header: Header) -> str:
    """Return the type of the unpacked matrices: the file's own 16- or 32-bit type, float16 for quantised ones."""
    sizes: dict[str, int] = {}
    for tensor in header.reader.tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    most = max(sizes, key=lambda name: sizes[name])
    return {"F32": "float32", "BF16": "bfloat16"}.get(most, "float16")


def check_complete(header: Header) -> None:
    """Check that every layer has every matrix. Raises `JobError` that names what is missing."""
    names = {tensor.name for tensor in header.reader.tensors}
    layers = int(header.needed("{arch}.block_count"))
    expected = {f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts(header.family)}
    missing = sorted((expected | {"token_embd.weight", "output_norm.weight"}) - names)
    if missing:
        raise JobError(
            f"the GGUF file lacks {len(missing)} tensors, the first is {missing[0]}.", "Download the file again."
        )


def dequantised(tensor: Any, header: Header) -> np.ndarray[Any, Any]:
    """Return the tensor's values as float32, rows in a checkpoint's order. Raises `JobError` for types gguf can't
    decode."""
    try:
        decoded = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, ValueError) as error:
        raise JobError(
            f"{tensor.name} is stored as {tensor.tensor_type.name}, which can't be decoded: {error}.",
            "Use a GGUF of another quantisation, such as Q8_0, Q4_K_M or F16.",
        ) from error
    values: np.ndarray[Any, Any] = decoded.astype(np.float32, copy=False)
    part = tensor.name.split(".")[-2]
    if header.target.norms_plus_one and part.endswith("norm"):
        values = values - 1.0
    return in_order(values, tensor.name, header)


def in_order(values: np.ndarray[Any, Any], name: str, header: Header) -> np.ndarray[Any, Any]:
    """Return a tensor's rows in a checkpoint's order; every other axis stays."""
    heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
    if not header.target.paired_rows or heads is None:
        return values
    count = header.value("{arch}.attention." + heads) or header.needed("{arch}.attention.head_count")
    return halves(values, int(count))


def halves(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder rows (heads x head size) from rotated pairs side by side to half a head apart; also for a bias of one
    axis."""
    shape = values.shape
    pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(shape))


def shards(header: Header, bytes_each: int, limit: int = SHARD_BYTES) -> list[Shard]:
    """Divide the tensors, in file order, into files of at most `limit` bytes (one tensor may be larger)."""
    groups: list[list[Any]] = [[]]
    shard_bytes = 0
    for tensor in header.reader.tensors:
        if tensor.name in _SKIPPED:
            continue
        size = int(tensor.n_elements) * bytes_each
        if groups[-1] and shard_bytes + size > limit:
            groups.append([])
            shard_bytes = 0
        groups[-1].append(tensor)
        shard_bytes += size
    total = len(groups)
    if total == 1:
        return [Shard("model.safetensors", tuple(groups[0]))]
    return [Shard(f"model-{i:05}-of-{total:05}.safetensors", tuple(group)) for i, group in enumerate(groups, 1)]


def write_weights(header: Header, folder: Path, dtype: str, limit: int = SHARD_BYTES) -> None:
    """Write all shards and their index; a shard of an interrupted run is kept if its digest is the recorded one.

    Raises `JobError` when a value doesn't fit the type.
    """
    # Imported here, since reading a file's header takes a tenth of the time that importing torch does.
    from safetensors.torch import save_file

    planned = shards(header, ELEMENT_BYTES[dtype], limit)
    done_file = folder / "shards.done.json"
    done: dict[str, str] = json.loads(done_file.read_text()) if done_file.exists() else {}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(planned):
        weight_map |= {name: shard.name for tensor in shard.tensors for name in _names(tensor, header)}
        target = folder / shard.name
        if target.exists() and done.get(shard.name) == digest(target):
            continue
        report_progress(number / len(planned), f"shard {number + 1} of {len(planned)}")
        tensors = {name: values for one in shard.tensors for name, values in _written(one, header, dtype).items()}
        partial = target.with_suffix(".partial")
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.replace(target)
        del tensors
        _release_pages(header)
        done[shard.name] = digest(target)
        done_file.write_text(json.dumps(done))
    if len(planned) > 1:
        size = sum((folder / shard.name).stat().st_size for shard in planned)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    done_file.unlink(missing_ok=True)


def _names(tensor: Any, header: Header) -> list[str]:
    """Return the names of a tensor in the checkpoint: one, or one for each expert."""
    name = checkpoint_name(tensor.name, header.family)
    if "{}" not in name:
        return [name]
    return [name.replace("{}", str(number)) for number in range(int(tensor.shape[2]))]


def _written(tensor: Any, header: Header, dtype: str) -> dict[str, Any]:
    """Return what a tensor becomes: matrices by their names."""
    names, values = _names(tensor, header), _narrowed(tensor, header, dtype)
    if values.dim() == 3:
        return {name: values[number].clone() for number, name in enumerate(names)}
    if tensor.name.endswith("ffn_gate_inp_shexp.weight"):
        values = values.reshape(1, -1)  # a matrix of one row in the checkpoint
    return {names[0]: values}


def _release_pages(header: Header) -> None:
    """Release the pages of the mapped file that were read; otherwise the whole file stays in this process's memory
    until memory is short."""
    mapped = getattr(header.reader.data, "base", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _narrowed(tensor: Any, header: Header, dtype: str) -> Any:
    import torch

    values = torch.from_numpy(dequantised(tensor, header))
    narrow = values.to(getattr(torch, dtype))
    if not bool(torch.isfinite(narrow).all()):
        raise JobError(
            f"{tensor.name} holds values that {dtype} can't represent (largest {float(values.abs().max()):.3g}).",
            "Pass --dtype bfloat16; if that fails too, the file is damaged.",
        )
    return narrow.contiguous()
