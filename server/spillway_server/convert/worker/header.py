"""Read what a GGUF file says of itself, by the gguf package: architecture, sizes, quantisation, vocabulary, template.

GGUF keys are those of the format's specification (ggml-org/ggml, docs/gguf.md): `general.*`, `ARCH.*`, `tokenizer.*`.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from spillway_server.convert.formats import (
    ARCHITECTURES,
    CHECKPOINT_INSTEAD,
    MIXTURES,
    Architecture,
    cannot_be_rebuilt,
    family_of,
)
from spillway_server.convert.worker.report import JobError


@dataclass(frozen=True, slots=True)
class Header:
    """An open GGUF file: its reader (tensors are mapped, not loaded) and its architecture's name."""

    reader: gguf.GGUFReader
    architecture: str

    @property
    def target(self) -> Architecture:
        """What the architecture becomes as a checkpoint."""
        return ARCHITECTURES[self.family]

    @property
    def family(self) -> str:
        """The key of `ARCHITECTURES`: the architecture, or what its experts make of it."""
        return family_of(self)

    def value(self, key: str, otherwise: Any = None) -> Any:
        """Return a metadata value; `{arch}` in the key stands for the architecture."""
        field = self.reader.get_field(key.replace("{arch}", self.architecture))
        return otherwise if field is None else field.contents()

    def needed(self, key: str) -> Any:
        """Return a required metadata value. Raises `JobError` where it is missing."""
        value = self.value(key)
        if value is None:
            name = key.replace("{arch}", self.architecture)
            raise JobError(f"the GGUF file has no {name}.", CHECKPOINT_INSTEAD)
        return value


def open_gguf(path: Path) -> Header:
    """Open a GGUF file. Raises `JobError` when it is damaged, split, or of an architecture that can't be rebuilt."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        raise JobError(
            f"{path} can't be read as GGUF: {error}.", "Download the file again and compare its size and digest."
        ) from error
    field = reader.get_field("general.architecture")
    architecture = "" if field is None else str(field.contents())
    header = Header(reader, architecture)
    obstacle = cannot_be_rebuilt(path.name, header)
    if obstacle is not None:
        raise JobError(obstacle.reason, obstacle.fix)
    _check_extent(header, path)
    return header


def _check_extent(header: Header, path: Path) -> None:
    """Raise `JobError` for a truncated download, which still has a complete header: a tensor ends past the file."""
    size = path.stat().st_size
    for tensor in header.reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise JobError(
                f"{path.name} ends inside tensor {tensor.name}: it has {size} bytes, fewer than its header says.",
                "Download the file again.",
            )


def facts(path: Path) -> dict[str, Any]:
    """Return the file's description as plain data; sizes are in parameters and tokens. Raises `JobError`."""
    header = open_gguf(path)
    kinds: collections.Counter[str] = collections.Counter()
    for tensor in header.reader.tensors:
        kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    return {
        "architecture": header.architecture,
        "name": header.value("general.name"),
        "parameters": sum(kinds.values()),
        "vocabulary": len(header.needed("tokenizer.ggml.tokens")),
        "hidden_size": header.needed("{arch}.embedding_length"),
        "quantisation": kinds.most_common(1)[0][0],
        "tensor_types": dict(kinds),
        "experts": int(header.value("{arch}.expert_count") or 0) if header.family in MIXTURES else 0,
        "context_tokens": header.needed("{arch}.context_length"),
        "tokenizer": header.value("tokenizer.ggml.model"),
        "pre_tokenizer": header.value("tokenizer.ggml.pre"),
        "chat_template": header.value("tokenizer.chat_template"),
    }


def model_config(header: Header, dtype: str, names: set[str]) -> dict[str, Any]:
    """Return the config.json for the file's architecture; `names` are its tensors. Raises `JobError`."""
    heads = int(header.needed("{arch}.attention.head_count"))
    hidden = int(header.needed("{arch}.embedding_length"))
    head_dim = int(header.value("{arch}.attention.key_length") or hidden // heads)
    config: dict[str, Any] = {
        "architectures": [header.target.model_class],
        "model_type": header.target.model_type,
        "vocab_size": len(header.needed("tokenizer.ggml.tokens")),
        "hidden_size": hidden,
        "intermediate_size": int(header.needed("{arch}.feed_forward_length")),
        "num_hidden_layers": int(header.needed("{arch}.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(header.value("{arch}.attention.head_count_kv") or heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": int(header.needed("{arch}.context_length")),
        # GGUF stores it as float32: 1e-05 comes back as 9.999999747e-06.
        "rms_norm_eps": float(f"{header.needed('{arch}.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(header.value("{arch}.rope.freq_base") or 10_000.0),
        "rope_scaling": _rope_scaling(header, head_dim),
        "tie_word_embeddings": "output.weight" not in names,
        "torch_dtype": dtype,
        "bos_token_id": header.value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.value("tokenizer.ggml.padding_token_id"),
        "use_cache": True,
    }
    if header.architecture not in ("qwen2", "qwen2moe"):
        config["attention_bias"] = "blk.0.attn_q.bias" in names
    if header.architecture == "llama":
        config["mlp_bias"] = False
    return config | _of_family(header, config)


def _of_family(header: Header, config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that only one family has; GGUF's own keys are named in llama.cpp's gguf-py constants."""
    match header.family:
        case family if family in MIXTURES:
            return _experts(header)
        case "gemma2" | "gemma3":
            return _gemma(header, config)
        case "granite":
            return {
                "embedding_multiplier": float(header.value("granite.embedding_scale") or 1.0),
                "residual_multiplier": float(header.value("granite.residual_scale") or 1.0),
                "attention_multiplier": float(header.value("granite.attention.scale") or config["head_dim"] ** -0.5),
                "logits_scaling": float(header.value("granite.logit_scale") or 1.0),
            }
        case "smollm3":
            # llama.cpp: every fourth layer has no rotary positions.
            return {"no_rope_layer_interval": 4}
        case "phi3":
            rotated = int(header.value("phi3.rope.dimension_count") or config["head_dim"])
            window = header.value("phi3.attention.sliding_window")
            return {
                "partial_rotary_factor": rotated / config["head_dim"],
                "original_max_position_embeddings": int(
                    header.value("phi3.rope.scaling.original_context_length") or config["max_position_embeddings"]
                ),
                "sliding_window": None if window is None else int(window),
            }
    return {}


def _experts(header: Header) -> dict[str, Any]:
    """Return the keys of a mixture. llama.cpp makes the weights of the chosen experts add up to 1 for some families."""
    count, used = int(header.needed("{arch}.expert_count")), int(header.needed("{arch}.expert_used_count"))
    width = _width(header, "blk.0.ffn_gate_exps.weight")
    if header.family == "mixtral":
        return {"num_local_experts": count, "num_experts_per_tok": used, "intermediate_size": width}
    config: dict[str, Any] = {"num_experts": count, "num_experts_per_tok": used}
    config |= {"norm_topk_prob": header.family == "qwen3moe"}
    if header.family == "olmoe":
        return {**config, "intermediate_size": width}
    config |= {"moe_intermediate_size": width, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if header.family == "qwen2moe":
        config |= {"shared_expert_intermediate_size": _width(header, "blk.0.ffn_gate_shexp.weight")}
        config |= {"qkv_bias": any(tensor.name == "blk.0.attn_q.bias" for tensor in header.reader.tensors)}
    return config


def _width(header: Header, name: str) -> int:
    """Return the number of rows of a matrix, or of each expert's. Raises `JobError` where it is missing."""
    tensor = next((one for one in header.reader.tensors if one.name == name), None)
    if tensor is None:
        raise JobError(f"the GGUF file has no tensor {name}.", CHECKPOINT_INSTEAD)
    return int(tensor.shape[1])  # GGUF names the columns first


def _gemma(header: Header, config: dict[str, Any]) -> dict[str, Any]:
    heads, hidden, layers = config["num_attention_heads"], config["hidden_size"], config["num_hidden_layers"]
    # The two largest models scale attention by the hidden size, the others by the head size.
    largest = (header.architecture, layers) in (("gemma2", 46), ("gemma3", 62))
    shared = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": hidden // heads if largest else config["head_dim"],
        "sliding_window": int(header.value("{arch}.attention.sliding_window") or 4096),
        "attn_logit_softcapping": header.value("{arch}.attn_logit_softcapping"),
        "final_logit_softcapping": header.value("{arch}.final_logit_softcapping"),
    }
    every = 2 if header.architecture == "gemma2" else 6
    kinds = ["full_attention" if number % every == every - 1 else "sliding_attention" for number in range(layers)]
    if header.architecture == "gemma3":
        shared["rope_local_base_freq"] = float(header.value("gemma3.rope.freq_base_swa") or 10_000.0)
    return {**shared, "layer_types": kinds}


def _rope_scaling(header: Header, head_dim: int) -> dict[str, Any] | None:
    kind = header.value("{arch}.rope.scaling.type") or "none"
    short, long = (_tensor(header, f"rope_factors_{name}.weight") for name in ("short", "long"))
    if short is not None and long is not None:
        return {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    if kind in ("linear", "yarn"):
        scaling = {"rope_type": kind, "factor": float(header.needed("{arch}.rope.scaling.factor"))}
        original = header.value("{arch}.rope.scaling.original_context_length")
        return scaling | ({"original_max_position_embeddings": int(original)} if original else {})
    if kind != "none":
        raise JobError(f"the GGUF file scales positions by {kind!r}, which can't be rebuilt.", CHECKPOINT_INSTEAD)
    factors = next((t for t in header.reader.tensors if t.name == "rope_freqs.weight"), None)
    if factors is None:
        return None
    return llama3_scaling([float(f) for f in factors.data], float(header.needed("{arch}.rope.freq_base")), head_dim)


def _tensor(header: Header, name: str) -> list[float] | None:
    """Return a small tensor's values, None where the file has none of that name."""
    tensor = next((one for one in header.reader.tensors if one.name == name), None)
    return None if tensor is None else [float(value) for value in tensor.data.reshape(-1)]


def llama3_scaling(factors: list[float], base: float, head_dim: int) -> dict[str, Any]:
    """Return Llama 3.1's scaling for the divisors that GGUF stores per frequency, which must be the ones it produces.

    Formula: transformers, modeling_rope_utils `llama3`; wave lengths beyond 8192 tokens are divided by the whole
    factor, those below 8192/4 by 1, and those between by a smooth transition. Raises `JobError` for other divisors.
    """
    import math

    original, low, high, largest = 8192, 1.0, 4.0, max(factors)
    for index, stored in enumerate(factors):
        wave = 2 * math.pi * base ** (2 * index / head_dim)
        smooth = min(max((original / wave - low) / (high - low), 0.0), 1.0)
        if abs(1 / ((1 - smooth) / largest + smooth) - stored) > 0.01 * stored:
            raise JobError("the GGUF file's rope_freqs are not those of Llama 3.1, 3.2 or 3.3.", CHECKPOINT_INSTEAD)
    return {
        "rope_type": "llama3",
        "factor": round(largest, 6),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
