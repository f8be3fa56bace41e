"""Write trained weights as safetensors for vLLM and as GGUF (F16, Q8_0) for llama.cpp.

`python -m spillway_server.demo_model.export --run FOLDER`, where FOLDER is the `--out` of `train`. Both
forms come from the same rounded weights, so a difference between the engines is the engines' own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from spillway_server.demo_model.tokenizer import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    MAX_POSITIONS,
    SPECIAL,
    TURN_END,
    VOCABULARY,
)
from spillway_server.demo_model.train import build_model

WEIGHTS = Path(__file__).parent / "weights"
GGUF_NAME = "spillway-demo"
_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def load_rounded(run: Path) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a training run, rounded to bfloat16 and without the tied output matrix."""
    state = torch.load(run / "model.pt", map_location="cpu", weights_only=True)
    return {name: t.to(torch.bfloat16).contiguous() for name, t in state.items() if name != "lm_head.weight"}


def write_safetensors(state: dict[str, torch.Tensor], run: Path, folder: Path) -> None:
    """Write a folder that `vllm --model folder` serves: weights, config, generation_config and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    shape = build_model().config
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": shape.eos_token_id,
        "pad_token_id": shape.pad_token_id,
        "use_cache": True,
    }
    _write_json(folder / "config.json", config)
    stops = {"eos_token_id": shape.eos_token_id, "pad_token_id": shape.pad_token_id, "do_sample": False}
    _write_json(folder / "generation_config.json", stops)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(run / name, folder / name)


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_gguf(state: dict[str, torch.Tensor], tokenizer: Tokenizer, path: Path, quant: str) -> None:
    """Write one GGUF file; `quant` is "F16" or "Q8_0" (norms stay float32, as llama.cpp expects)."""
    kind = gguf.GGMLQuantizationType[quant]
    writer = gguf.GGUFWriter(path, "llama")
    _write_hyperparameters(writer, gguf.LlamaFileType[f"MOSTLY_{quant}"])
    _write_vocabulary(writer, tokenizer)
    config = build_model().config
    for name, tensor in state.items():
        if name.endswith("q_proj.weight"):
            tensor = interleave_rope(tensor, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            tensor = interleave_rope(tensor, config.num_key_value_heads)
        values = tensor.float().numpy()
        stored = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else kind
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave_rope(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of a q/k projection for llama.cpp: rotated pairs side by side, not half a head apart."""
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()


def _gguf_name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[part]}.weight"


def _write_hyperparameters(writer: gguf.GGUFWriter, file_type: gguf.LlamaFileType) -> None:
    config = build_model().config
    writer.add_name("Spillway demo model")
    writer.add_license("apache-2.0")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(MAX_POSITIONS)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.id_to_token(index) for index in range(VOCABULARY)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a training run as safetensors and GGUF.")
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of the training run")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to write to")
    given = parser.parse_args()
    state = load_rounded(given.run)
    write_safetensors(state, given.run, given.weights)
    tokenizer = Tokenizer.from_file(str(given.run / "tokenizer.json"))
    (given.weights / "gguf").mkdir(exist_ok=True)
    for quant in ("F16", "Q8_0"):
        write_gguf(state, tokenizer, given.weights / "gguf" / f"{GGUF_NAME}-{quant}.gguf", quant)
    for path in sorted(given.weights.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size / 1e6:7.3f} MB  {path.relative_to(given.weights)}")


if __name__ == "__main__":
    main()
