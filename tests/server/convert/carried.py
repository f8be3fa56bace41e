"""Run by .venv-convert's Python: rewrites a GGUF (argument 1) as Q8_0 and as Q4_0 in a folder (argument 2), carries
both over, and prints for each how many weights there are and how many differ from those the gguf package decodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors.torch import load_file

from spillway_server.convert.worker import carry, header, requantise, tensors


def compared(gguf: Path, folder: Path, kind: str, bits: int) -> dict[str, int]:
    """Carry one kind over, and compare weight by weight."""
    rewritten, plain, target = folder / f"{kind}.gguf", folder / f"plain-{kind}", folder / f"carried-{kind}"
    requantise.requantise(gguf, rewritten, kind)
    opened = header.open_gguf(rewritten)
    plain.mkdir()
    tensors.write_weights(opened, plain, "float16")
    names = {tensor.name for tensor in opened.reader.tensors}
    (plain / "config.json").write_text(json.dumps(header.model_config(opened, "float16", names)))
    recipe = carry.carry(plain, target, bits, opened)
    written = load_file(target / "model.safetensors")
    weights = differing = 0
    for tensor in opened.reader.tensors:
        name = "" if tensors.is_skipped(tensor.name) else tensors.checkpoint_name(tensor.name, opened.architecture)
        if not carry.is_matrix(name):
            continue
        base = name.removesuffix(".weight")
        expected = tensors.dequantised(tensor, opened)
        integers = unpack_from_int32(written[f"{base}.weight_packed"], bits, torch.Size(expected.shape)).numpy()
        scales = np.repeat(written[f"{base}.weight_scale"].numpy().astype(np.float32), carry.GROUP, axis=1)
        differing += int(np.count_nonzero(integers.astype(np.float32) * scales != expected))
        weights += expected.size
    assert recipe["weights_carried"] == weights
    return {"weights": weights, "differ": differing}


if __name__ == "__main__":
    source, work = Path(sys.argv[1]), Path(sys.argv[2])
    pairs = (("Q8_0", 8), ("Q4_0", 4), ("Q4_0", 8))
    counts = {}
    for number, (kind, bits) in enumerate(pairs):
        (work / str(number)).mkdir()
        counts[f"{kind} in {bits} bits"] = compared(source, work / str(number), kind, bits)
    print(json.dumps(counts))
