"""Run by .venv-convert's Python: tiny random models of every family -> GGUF -> checkpoint; prints the largest
difference of their logits as JSON. Tensor names come from the gguf package's own map, not from ours."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from spillway_server.convert.worker import __main__ as worker

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "qwen2moe": gguf.MODEL_ARCH.QWEN2MOE,
    "qwen3moe": gguf.MODEL_ARCH.QWEN3MOE,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
}
MIXTURES = ("qwen2moe", "qwen3moe", "olmoe", "mixtral")
EXPERTS, USED, EXPERT_WIDTH, SHARED_WIDTH = 4, 2, 32, 48
TYPES = {"gemma3": "gemma3_text", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}
# Six layers for Gemma 3 and four for SmolLM3: their last layer differs from the others.
LAYERS, WORDS = {"gemma3": 6, "smollm3": 4}, 300
PAIRED = ("llama", "granite", "smollm3", "mixtral")
SCALES = {"embedding": 3.0, "residual": 0.5, "attention": 0.2, "logit": 2.0}
CHOICE = {"num_experts": EXPERTS, "num_experts_per_tok": USED, "moe_intermediate_size": EXPERT_WIDTH}
EXTRA = {
    "qwen2moe": {**CHOICE, "shared_expert_intermediate_size": SHARED_WIDTH},
    "qwen3moe": {**CHOICE, "norm_topk_prob": True},
    "olmoe": {**CHOICE, "intermediate_size": EXPERT_WIDTH, "num_key_value_heads": 4},
    "mixtral": {"num_local_experts": EXPERTS, "num_experts_per_tok": USED, "intermediate_size": EXPERT_WIDTH},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3": {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "granite": {
        "embedding_multiplier": SCALES["embedding"],
        "residual_multiplier": SCALES["residual"],
        "attention_multiplier": SCALES["attention"],
        "logits_scaling": SCALES["logit"],
    },
}


def random_model(family: str, tied: bool) -> torch.nn.Module:
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS.get(family, 2), "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 0, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": WORDS, "max_position_embeddings": 256, "rope_theta": 50_000.0, "tie_word_embeddings": tied,
    }  # fmt: skip
    config = AutoConfig.for_model(TYPES.get(family, family), **{**sizes, **EXTRA.get(family, {})})
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        # Biases and norms start as constants, which would hide a mix-up.
        torch.nn.init.normal_(parameter, mean=0.05, std=0.3)
    return model


def published(model: torch.nn.Module, family: str, folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors under the names of a published checkpoint, the experts of a layer in one, as llama.cpp's
    converter collects them."""
    if family not in MIXTURES:
        return dict(model.state_dict())
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    experts = re.compile(r"(.*\.experts)\.(\d+)\.(.*)")
    collected: dict[str, dict[int, torch.Tensor]] = {}
    for name in [name for name in tensors if experts.fullmatch(name)]:
        match = experts.fullmatch(name)
        assert match is not None
        collected.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensors.pop(name)
    merged = {name: torch.stack([matrices[n] for n in range(EXPERTS)]) for name, matrices in collected.items()}
    return tensors | merged


def write(model: torch.nn.Module, family: str, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama" if family == "mixtral" else family)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    layers = LAYERS.get(family, 2)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(4)
    writer.add_head_count_kv(model.config.num_key_value_heads)
    if family in MIXTURES:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(USED)
        writer.add_expert_feed_forward_length(EXPERT_WIDTH)
        if family == "qwen2moe":
            writer.add_expert_shared_feed_forward_length(SHARED_WIDTH)
    writer.add_key_length(16)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_dimension_count(16)
    if family.startswith("gemma"):
        writer.add_sliding_window(8)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(model.config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(model.config.final_logit_softcapping)
    if family == "granite":
        writer.add_embedding_scale(SCALES["embedding"])
        writer.add_residual_scale(SCALES["residual"])
        writer.add_attention_scale(SCALES["attention"])
        writer.add_logit_scale(SCALES["logit"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["w", "0", "w0", *(f"x{number}" for number in range(3, WORDS))])
    writer.add_token_types([1] * WORDS)
    writer.add_token_merges(["w 0"])
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], layers)
    for name, tensor in published(model, family, path.with_suffix(".published")).items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        heads = 4 if "q_proj" in name else 2
        if name.endswith("shared_expert_gate.weight"):
            values = values.reshape(-1)
        if family.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if family in PAIRED and ("q_proj" in name or "k_proj" in name):
            # llama.cpp's convert_hf_to_gguf: halves of a head become pairs.
            values = values.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def difference(family: str, tied: bool, folder: Path) -> float:
    model = random_model(family, tied)
    path, out = folder / f"{family}-{tied}.gguf", folder / f"{family}-{tied}"
    write(model, family, path)
    job = {"gguf": str(path), "tokenizer": None, "folder": str(out), "dtype": "float32", "template": "x"}
    worker._inspect(job)
    worker._unpack({**job, "stops": [], "shard_bytes": None})
    again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    token_ids = torch.arange(40).reshape(1, 40) * 7 % WORDS
    with torch.inference_mode():
        return float((model(token_ids).logits - again(token_ids).logits).abs().max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    chosen = sys.argv[2:] or ARCHITECTURES
    differences = {
        f"{family} tied={tied}": difference(family, tied, place)
        for family in chosen
        # Only these publish models with an output matrix of their own and without.
        for tied in ((True, False) if family in ("llama", "qwen2", "qwen3") else (family.startswith("gemma"),))
    }
    print(json.dumps(differences))
