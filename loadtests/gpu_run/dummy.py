"""Writes a checkpoint of a known shape without weights: vLLM fills them with random numbers (`--load-format dummy`).

Memory and speed are those of the real model, as neither depends on the values; what it answers is noise. The file of
weights is sparse: it has the size that `spillway plan` reads, and takes no room on the disk. The tokenizer is that of
the bundled demo model, lengthened by words that no text contains, so that each id which the model may answer is a word.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spillway_server.planning.models import DEMO_WEIGHTS

_COMMON: Mapping[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "num_hidden_layers": 28,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 511,
    "pad_token_id": 509,
}
SHAPES: Mapping[str, tuple[int, dict[str, Any]]] = {
    "qwen2.5-7b": (
        7_615_616_512,
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2.5-1.5b": (
        1_543_714_304,
        {
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    ),
}
"""Parameters and configuration of published models, by name."""


def write(folder: Path, shape: str) -> Path:
    """Write the checkpoint of a shape into a folder of its name, and return that folder."""
    parameters, config = SHAPES[shape]
    target = folder / f"{shape}-dummy"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps({**_COMMON, **config}, indent=1))
    shutil.copy(DEMO_WEIGHTS / "generation_config.json", target)
    settings = json.loads((DEMO_WEIGHTS / "tokenizer_config.json").read_text())
    (target / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 32768}))
    tokenizer = json.loads((DEMO_WEIGHTS / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"\u0120w{number}": number for number in range(512, config["vocab_size"])}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    with (target / "model.safetensors").open("wb") as file:
        file.truncate(2 * parameters)
    return target
