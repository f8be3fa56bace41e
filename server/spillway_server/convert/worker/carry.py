"""Quantise in groups of 32 as GGUF does: carry integers and scales over where the format allows it, else fit them.

Q4_0, Q5_0 and Q8_0 blocks are 32 integers and one 16-bit scale, which is exactly a symmetric group of 32 in the
compressed-tensors format: 4 bits hold Q4_0, 8 bits hold all three, and no weight changes. Other types (K-quants, Q4_1,
plain numbers) are fitted: with 4 bits by a scale and a zero point per group that leave the least squared error, with 8
bits by a scale. The layout of blocks is that of ggml's quantisation (ggml-quants.c).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spillway_server.convert.worker import tensors
from spillway_server.convert.worker.header import Header
from spillway_server.convert.worker.quantise import COPIED, check_kernel
from spillway_server.convert.worker.report import report_progress

GROUP = 32
_EXACT = {4: ("Q4_0",), 8: ("Q4_0", "Q5_0", "Q8_0")}
_SHRINK = (1.0, 0.93, 0.86)
Array = np.ndarray[Any, Any]


def carry(source: Path, target: Path, bits: int, header: Header | None) -> dict[str, Any]:
    """Write a checkpoint with matrices of `bits` bits from the 16-bit checkpoint `source`, and return the recipe.

    `header` is the GGUF file that the checkpoint was unpacked from; without one everything is fitted. Raises `JobError`
    where no kernel takes the matrices.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    target.mkdir(parents=True, exist_ok=True)
    originals = {} if header is None else {
        tensors.checkpoint_name(one.name, header.family): one
        for one in header.reader.tensors
        if not tensors.is_skipped(one.name)
    }  # fmt: skip
    kinds = {name: one.tensor_type.name for name, one in originals.items()}
    files = sorted(source.glob("*.safetensors"))
    names = [name for file in files for name in _names(file) if is_matrix(name)]
    symmetric = bits == 8 or all(kinds.get(name) in _EXACT[bits] for name in names)
    exact = done = 0
    weight_map: dict[str, str] = {}
    for file in files:
        content: dict[str, Any] = {}
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if not is_matrix(name):
                    content[name] = opened.get_tensor(name)
                    continue
                report_progress(done / len(names), name)
                done += 1
                if kinds.get(name) in _EXACT[bits] and header is not None:
                    integers, scales = in_blocks(originals[name], header)
                    content |= _packed(name, integers, scales, None, bits)
                    exact += integers.size
                else:
                    content |= _fitted(name, opened.get_tensor(name), bits, symmetric)
        save_file(content, target / file.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(content, file.name)
    _write_rest(source, target, weight_map, bits, symmetric)
    return {"method": "carried", "bits": bits, "group_size": GROUP, "symmetric": symmetric, "weights_carried": exact,
            "kept_in_16_bit": ["embeddings", "lm_head"], "calibration_samples": 0}  # fmt: skip


def is_matrix(name: str) -> bool:
    """Return whether a checkpoint's tensor is a matrix of a layer, which is quantised."""
    return name.endswith("_proj.weight")


def in_blocks(tensor: Any, header: Header) -> tuple[Array, Array]:
    """Return the integers (rows x columns, int8) and scales (rows x groups, float16) of a Q4_0, Q5_0 or Q8_0 tensor,
    rows in a checkpoint's order."""
    kind = tensor.tensor_type.name
    size = {"Q4_0": 18, "Q5_0": 22, "Q8_0": 34}[kind]
    blocks = np.ascontiguousarray(tensor.data).reshape(-1, size)
    scales = blocks[:, :2].copy().view(np.float16)
    rows = tensor.data.shape[0]
    if kind == "Q8_0":
        integers = blocks[:, 2:].view(np.int8)
    else:
        packed = blocks[:, -16:]
        integers = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int8)
        if kind == "Q5_0":
            high = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little").astype(np.int8)
            integers = integers + (high << 4) - 16
        else:
            integers = integers - 8
    ordered = tensors.in_order(np.ascontiguousarray(integers.reshape(rows, -1)), tensor.name, header)
    return ordered, tensors.in_order(np.ascontiguousarray(scales.reshape(rows, -1)), tensor.name, header)


def _names(file: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        yield from opened.keys()


def _fitted(name: str, weights: Any, bits: int, symmetric: bool) -> dict[str, Any]:
    """Return the packed form of a matrix whose groups are fitted."""
    import torch

    rows, columns = weights.shape
    check_kernel({name: (rows, columns)})
    groups = weights.float().reshape(-1, GROUP)
    if symmetric:
        half = 2 ** (bits - 1)
        scales = (groups.abs().amax(1, keepdim=True) / (half - 1)).half().float()
        scales = torch.where(scales == 0, torch.ones_like(scales), scales)
        integers, zeros = torch.round(groups / scales).clamp(-half, half - 1), None
    else:
        integers, scales, zeros = _least_squares(groups, 2**bits - 1)
        integers, zeros = integers - 2 ** (bits - 1), zeros - 2 ** (bits - 1)
        zeros = zeros.reshape(rows, -1).to(torch.int8).numpy()
    whole = integers.reshape(rows, columns).to(torch.int8).numpy()
    return _packed(name, whole, scales.reshape(rows, -1).half().numpy(), zeros, bits)


def _least_squares(groups: Any, most: int) -> tuple[Any, Any, Any]:
    """Return integers, scales and zero points (all as float32) that leave little squared error: several ranges and zero
    points are tried, each with the best scale for its integers."""
    import torch

    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    width = (high - low).clamp(min=1e-8)
    first = torch.round(-low / width * most)
    best = torch.full_like(low, torch.inf)
    integers, scales, zeros = torch.zeros_like(groups), torch.ones_like(low), torch.zeros_like(low)
    for shrink in _SHRINK:
        for shift in (-1, 0, 1):
            zero = (first + shift).clamp(0, most)
            scale = width * shrink / most
            trial = (torch.round(groups / scale) + zero).clamp(0, most) - zero
            scale = ((groups * trial).sum(1, keepdim=True) / trial.square().sum(1, keepdim=True).clamp(min=1)).half()
            scale = torch.where(scale.abs() < 1e-7, torch.full_like(scale, 1e-7), scale).float()
            trial = (torch.round(groups / scale) + zero).clamp(0, most)
            error = (groups - scale * (trial - zero)).square().sum(1, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            integers = torch.where(better, trial, integers)
            scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
    return integers, scales, zeros


def _packed(name: str, integers: Array, scales: Array, zeros: Array | None, bits: int) -> dict[str, Any]:
    """Return the tensors of one matrix in the pack-quantized format."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    base = name.removesuffix(".weight")
    packed = {
        f"{base}.weight_packed": pack_to_int32(torch.from_numpy(np.ascontiguousarray(integers)), bits),
        f"{base}.weight_scale": torch.from_numpy(np.ascontiguousarray(scales)),
        f"{base}.weight_shape": torch.tensor(integers.shape, dtype=torch.int64),
    }
    if zeros is not None:
        packed[f"{base}.weight_zero_point"] = pack_to_int32(
            torch.from_numpy(np.ascontiguousarray(zeros)), bits, packed_dim=0
        ).contiguous()
    return packed


def _write_rest(source: Path, target: Path, weight_map: dict[str, str], bits: int, symmetric: bool) -> None:
    config = json.loads((source / "config.json").read_text())
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": GROUP}
    group = {"targets": ["Linear"], "weights": weights | {"dynamic": False, "observer": "minmax"},
             "input_activations": None, "output_activations": None}  # fmt: skip
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if len(set(weight_map.values())) > 1:
        size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    for name in COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
