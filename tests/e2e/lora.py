"""Writes a LoRA adapter for the demo model."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

RANK, HIDDEN = 8, 256


def adapter(folder: Path, strength: float) -> Path:
    """Write a LoRA on the demo model's q projections in the format of PEFT, and return its folder.

    With strength 0 it changes no answer.
    """
    chance = random.Random(1)
    tensors: dict[str, tuple[list[int], bytes]] = {}
    for layer in range(3):
        for name, shape, spread in (("A", [RANK, HIDDEN], 0.1), ("B", [HIDDEN, RANK], strength)):
            values = [chance.gauss(0, spread) if spread else 0.0 for _ in range(RANK * HIDDEN)]
            key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{name}.weight"
            tensors[key] = (shape, struct.pack(f"<{len(values)}f", *values))
    header, place = {}, 0
    for key, (shape, data) in tensors.items():
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + len(data)]}
        place += len(data)
    text = json.dumps(header).encode()
    folder.mkdir()
    weights = b"".join(data for _, data in tensors.values())
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + weights)
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**about, "task_type": "CAUSAL_LM"}))
    return folder
