"""The memory that a model needs: the bytes of its weights and the shape of its KV cache, from a directory or a table.

KV bytes per token = 2 (key and value) x layers x KV heads x head dimension x bytes per element. Weights in the table:
embeddings take 16 bits; other parameters take 4 bits plus one 16-bit scale and one 4-bit zero point per group of 128
(0.5195 bytes each), or 8 bits, or 16 bits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spillway_server.obstacle import Obstacle
from spillway_server.planning import verification
from spillway_server.planning.hardware import Hardware

DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo_model" / "weights"
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model: parameters, bytes of weights, layers, KV heads, head size, longest context in tokens."""

    parameters: int
    weight_bytes: int
    layers: int
    kv_heads: int
    head_dim: int
    max_len: int

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """Return the bytes of KV cache that one token takes at this element size."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to serve.

    `location` is what vLLM gets (a directory or a hub name); `served_name` is what clients call it; `dtype` is the
    checkpoint's own; `quantisation` is None, awq, gptq, w4a16, int8, fp8, gguf or whatever the checkpoint names;
    `shape` is None for a hub model that is neither in the table nor on this disk; `caution` is a warning about a
    converted model that did not pass its quality gate.
    """

    location: str
    served_name: str
    dtype: str
    quantisation: str | None
    shape: ModelShape | None
    tool_parser: str | None = None
    caution: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the weights are on this disk, so that no hub is needed."""
        return Path(self.location).is_absolute()


def _entry(
    name: str, sizes: tuple[int, int, int], kv: tuple[int, int, int], quantisation: str | None, parser: str
) -> ModelSpec:
    """Build a table row: sizes = (parameters, embedding parameters, longest context); kv = (layers, KV heads, head
    size)."""
    parameters, embeddings, max_len = sizes
    layers, kv_heads, head_dim = kv
    rest = parameters - embeddings
    body = {None: rest * 2.0, "fp8": rest * 1.0}.get(quantisation, rest * (0.5 + 2.5 / 128))
    shape = ModelShape(
        parameters=parameters,
        weight_bytes=int(embeddings * 2 + body),
        layers=layers,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_len=max_len,
    )
    dtype = "float16" if quantisation == "awq" else "bfloat16"
    return ModelSpec(
        location=name, served_name=name, dtype=dtype, quantisation=quantisation, shape=shape, tool_parser=parser
    )


_QWEN_7B = ((7_615_616_512, 1_089_994_752, 32_768), (28, 4, 128))
_QWEN_1_5B = ((1_543_714_304, 233_373_696, 32_768), (28, 2, 128))
_LLAMA_8B = ((8_030_261_248, 1_050_673_152, 131_072), (32, 8, 128))

TABLE: dict[str, ModelSpec] = {
    spec.location: spec
    for spec in (
        _entry("Qwen/Qwen2.5-7B-Instruct-AWQ", *_QWEN_7B, "awq", "hermes"),
        _entry("Qwen/Qwen2.5-7B-Instruct", *_QWEN_7B, None, "hermes"),
        _entry("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic", *_QWEN_7B, "fp8", "hermes"),
        _entry("Qwen/Qwen2.5-1.5B-Instruct", *_QWEN_1_5B, None, "hermes"),
        _entry("Qwen/Qwen2.5-1.5B-Instruct-AWQ", *_QWEN_1_5B, "awq", "hermes"),
        _entry("meta-llama/Llama-3.1-8B-Instruct", *_LLAMA_8B, None, "llama3_json"),
        _entry("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", *_LLAMA_8B, "w4a16", "llama3_json"),
        _entry("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", *_LLAMA_8B, "fp8", "llama3_json"),
    )
}
T4_CLASS = "Qwen/Qwen2.5-7B-Instruct-AWQ"
FP8_CLASS = "RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic"


def resolve(name: str, hardware: Hardware, hub_cache: Path) -> ModelSpec | Obstacle:
    """Find the model that the user names: `auto`, `demo`, a directory, a name of the table, or any hub name.

    `hub_cache` is the folder of downloaded hub models; a model in it is read, and nothing is downloaded.
    """
    if name == "auto":
        name = choose(hardware)
    if name == "demo":
        return demo()
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return ModelSpec(
            location=str(path.absolute()), served_name=path.stem, dtype="float16", quantisation="gguf", shape=None
        )
    if path.is_dir():
        return from_directory(path.absolute(), path.absolute().name)
    if name in TABLE:
        return TABLE[name]
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return Obstacle(
            f"there is no model {name!r}: it is neither a directory nor a hub name (owner/name).",
            f"Give a directory with config.json and *.safetensors, a hub name such as {T4_CLASS}, `demo`, or `auto`.",
        )
    for snapshot in sorted(hub_cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json")):
        spec = from_directory(snapshot.parent, name)
        if isinstance(spec, ModelSpec):
            return replace(spec, location=name)
    return ModelSpec(
        location=name,
        served_name=name,
        dtype="bfloat16",
        quantisation=_guess_quantisation(name),
        shape=None,
        tool_parser=_tool_parser(name),
    )


def choose(hardware: Hardware) -> str:
    """Return the model that `auto` stands for: the demo model without a GPU, else a quantised 7B that the GPU runs
    well."""
    if not hardware.gpus:
        return "demo"
    return FP8_CLASS if hardware.gpus[0].compute_capability >= (8, 9) else T4_CLASS


def demo() -> ModelSpec | Obstacle:
    """Return the bundled demo model."""
    spec = from_directory(DEMO_WEIGHTS, "demo")
    if isinstance(spec, Obstacle):
        return Obstacle(
            f"the bundled demo model is incomplete: {spec.reason}",
            "Restore it with `git checkout -- server/spillway_server/demo_model/weights`, "
            "or name another model with --model.",
        )
    # Its config says nothing about tool calls; this parser passes the model's answers through.
    return replace(spec, tool_parser="hermes")


def from_directory(path: Path, served_name: str) -> ModelSpec | Obstacle:
    """Read a checkpoint's config.json and the sizes of its safetensors files."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Obstacle(f"{path} has no config.json.", "Point --model at a Hugging Face checkpoint directory.")
    except (ValueError, RecursionError) as error:
        return Obstacle(f"{path / 'config.json'} is not JSON: {error}.", "Download the checkpoint again.")
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    if weights == 0:
        return Obstacle(f"{path} has no *.safetensors file.", "Convert the checkpoint to safetensors first.")
    if not isinstance(config, dict):
        return Obstacle(f"{path / 'config.json'} is not a JSON object.", "Download the checkpoint again.")
    text = config.get("text_config", config)
    try:
        shape = _shape(text, weights, _dtype(config))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return Obstacle(
            f"{path / 'config.json'} lacks a usable value for {error}.",
            "Use a causal language model's checkpoint (num_hidden_layers, hidden_size, num_attention_heads).",
        )
    shape = replace(shape, max_len=min(shape.max_len, _sentence_limit(path) or shape.max_len))
    architectures = config.get("architectures")
    names = map(str, architectures) if isinstance(architectures, list) else ()
    family = " ".join([served_name, *names, str(config.get("model_type", ""))])
    caution = verification.warning(path)
    return ModelSpec(
        location=str(path),
        served_name=served_name,
        dtype=_dtype(config),
        quantisation=_quantisation(config),
        shape=shape,
        tool_parser=_tool_parser(family),
        caution=caution,
    )


def _sentence_limit(path: Path) -> int | None:
    """Return the longest input of a sentence-transformers model, to which vLLM holds it; None if it has none."""
    try:
        limit = json.loads((path / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return limit if isinstance(limit, int) and limit > 0 else None


def _shape(config: dict[str, Any], weights: int, dtype: str) -> ModelShape:
    heads = int(config["num_attention_heads"])
    return ModelShape(
        parameters=weights // DTYPE_BYTES[dtype],
        weight_bytes=weights,
        layers=int(config["num_hidden_layers"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        max_len=int(config.get("max_position_embeddings") or 2048),
    )


def _dtype(config: dict[str, Any]) -> str:
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else {}
    name = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return name if isinstance(name, str) and name in DTYPE_BYTES else "bfloat16"


def _quantisation(config: dict[str, Any]) -> str | None:
    entry = config.get("quantization_config")
    if not isinstance(entry, dict):
        return None
    method = str(entry.get("quant_method", "unknown"))
    if method != "compressed-tensors":
        return method
    by_name = entry.get("config_groups")
    groups = [group for group in by_name.values() if isinstance(group, dict)] if isinstance(by_name, dict) else []
    weights = groups[0].get("weights") if groups else None
    if not isinstance(weights, dict):
        weights = {}
    if weights.get("type") == "float":
        return "fp8"
    return "w4a16" if weights.get("num_bits") == 4 else "int8"


def _guess_quantisation(name: str) -> str | None:
    lowered = name.lower()
    marks = ("awq", "gptq", "w4a16", "w8a8", "fp8", "gguf")
    first = next((mark for mark in marks if mark in lowered), None)
    return "int8" if first == "w8a8" else first


def _tool_parser(family: str) -> str | None:
    lowered = family.lower()
    parsers = (("qwen2", "hermes"), ("qwen3", "hermes"), ("llama-3", "llama3_json"), ("mistral", "mistral"))
    return next((parser for mark, parser in parsers if mark in lowered), None)
