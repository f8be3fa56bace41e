"""Which model the user means, and its shape: from its directory, its GGUF header, a record, or its hub.

Nothing is downloaded but a hub's configuration and the sizes of its files. A model that can't be known is refused with
what to give; `force` plans it without arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spillway_server.obstacle import Obstacle
from spillway_server.planning import gguf_file, recorded, verification
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.hub import Hub, HubModel
from spillway_server.planning.shapes import DTYPE_BYTES, ModelShape, UnknownStateError, shape_of

DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo_model" / "weights"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to serve.

    `location` is what vLLM gets (a directory or a hub name); `served_name` is what clients call it; `dtype` is the
    checkpoint's own; `quantisation` is None, awq, gptq, w4a16, int8, fp8, gguf or whatever the checkpoint names;
    `shape` is None only for a model that the user forces without one; `caution` is a warning about a converted model
    that did not pass its quality gate. `architecture` is the class that config.json names, `origin` says where the
    shape was read, `gated` that the hub asks for a login.
    """

    location: str
    served_name: str
    dtype: str
    quantisation: str | None
    shape: ModelShape | None
    tool_parser: str | None = None
    caution: str | None = None
    architecture: str = ""
    origin: str = ""
    gated: bool = False
    vision: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the weights are on this disk, so that no hub is needed."""
        return Path(self.location).is_absolute()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a model may be looked up.

    `cache` is the folder of downloaded hub models, `hub` the hub to ask (None: no network), `description` a folder with
    a copy of the model's config.json and model.safetensors.index.json. `force` accepts a model that none of them knows.
    """

    cache: Path
    hub: Hub | None = None
    description: Path | None = None
    force: bool = False


T4_CLASS = "Qwen/Qwen2.5-7B-Instruct-AWQ"
FP8_CLASS = "RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic"


def resolve(name: str, hardware: Hardware, sources: Sources) -> ModelSpec | Obstacle:
    """Find the model that the user names: `auto`, `demo`, a directory, a GGUF file, or a hub name.

    A hub model is read from the description that the user gives, from the cache of downloads, from the recorded
    configurations, and only then from the hub.
    """
    if name == "auto":
        name = choose(hardware)
    if name == "demo":
        return demo()
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _from_gguf(path.absolute(), sources.force)
    if path.is_dir():
        return from_directory(path.absolute(), path.absolute().name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return Obstacle(
            f"there is no model {name!r}: it is neither a directory nor a hub name (owner/name).",
            f"Give a directory with config.json and *.safetensors, a hub name such as {T4_CLASS}, `demo`, or `auto`.",
        )
    spec = _hub_model(name, sources)
    if isinstance(spec, Obstacle) and sources.force:
        return _unknown(name, spec)
    return spec


def _hub_model(name: str, sources: Sources) -> ModelSpec | Obstacle:
    if sources.description is not None:
        described = from_directory(sources.description.expanduser().absolute(), name, needs_weights=False)
        return described if isinstance(described, Obstacle) else replace(described, location=name)
    for snapshot in sorted(sources.cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json")):
        spec = from_directory(snapshot.parent, name)
        if isinstance(spec, ModelSpec):
            return replace(spec, location=name)
    record = recorded.find(name)
    if record is not None:
        spec = of_config(record.config, record.name, origin=f"recorded from {record.source}")
        return spec if isinstance(spec, Obstacle) else replace(spec, gated=record.gated)
    if sources.hub is None:
        return Obstacle(
            f"the size of {name} is unknown: it is not on this disk, and no hub may be asked (HF_HUB_OFFLINE).",
            _GIVE.format(name=name),
        )
    answer = sources.hub.look_up(name)
    if isinstance(answer, Obstacle):
        return replace(answer, fix=f"{answer.fix} {_GIVE.format(name=name)}")
    return _from_hub(name, answer)


_GIVE = (
    "Give a folder with a copy of its config.json and model.safetensors.index.json (--model-config DIR), or --force to "
    "go on without arithmetic."
)


def _from_hub(name: str, answer: HubModel) -> ModelSpec | Obstacle:
    spec = of_config(answer.config, name, answer.weight_bytes, answer.largest_file, f"read from {answer.source}")
    return spec if isinstance(spec, Obstacle) else replace(spec, gated=answer.gated)


def _unknown(name: str, why: Obstacle) -> ModelSpec:
    return ModelSpec(
        location=name,
        served_name=name,
        dtype="bfloat16",
        quantisation=_guess_quantisation(name),
        shape=None,
        tool_parser=_tool_parser(name),
        caution=f"forced: {why.reason}",
    )


def recorded_model(name: str) -> ModelSpec:
    """Return a model of the recorded configurations. Raises `KeyError` for any other."""
    record = recorded.find(name)
    spec = None if record is None else of_config(record.config, record.name, origin=f"recorded from {record.source}")
    if not isinstance(spec, ModelSpec) or record is None:
        raise KeyError(name)
    return replace(spec, gated=record.gated)


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


def from_directory(
    path: Path, served_name: str, needs_weights: bool = True, elsewhere: tuple[int, ...] = ()
) -> ModelSpec | Obstacle:
    """Read a checkpoint's config.json and the sizes of its safetensors files, or of its index where they are not
    needed. `elsewhere` are the sizes in bytes of those that are somewhere else."""
    config = _json_file(path / "config.json", "Point --model at a Hugging Face checkpoint directory.")
    if isinstance(config, Obstacle):
        return config
    sizes = list(elsewhere) or [file.stat().st_size for file in path.glob("*.safetensors")]
    if not sizes and needs_weights:
        return Obstacle(f"{path} has no *.safetensors file.", "Convert the checkpoint to safetensors first.")
    weights = sum(sizes) or _index_bytes(path)
    spec = of_config(config, served_name, weights, max(sizes, default=0), str(path))
    if isinstance(spec, Obstacle):
        return spec
    assert spec.shape is not None
    limits = (_sentence_limit(path), _tokenizer_limit(path), spec.shape.max_len)
    shape = replace(spec.shape, max_len=min(limit for limit in limits if limit))
    return replace(spec, location=str(path), shape=shape, caution=verification.warning(path))


def of_config(
    config: Mapping[str, Any], name: str, weights: int = 0, largest_file: int = 0, origin: str = ""
) -> ModelSpec | Obstacle:
    """Return the model that a config.json describes; `weights` and `largest_file` are bytes, 0 to work them out."""
    dtype = _dtype(config)
    try:
        shape = shape_of(config, dtype, weights, largest_file)
    except UnknownStateError as error:
        return Obstacle(
            f"{name} has {error}, whose memory Spillway can't work out.",
            "Choose a model with attention in every layer, or plan without arithmetic: --force.",
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return Obstacle(
            f"the config.json of {name} lacks a usable value for {error}.",
            "Use a causal language model's checkpoint (num_hidden_layers, hidden_size, num_attention_heads).",
        )
    architectures = config.get("architectures")
    names = tuple(map(str, architectures)) if isinstance(architectures, list) else ()
    return ModelSpec(
        location=name,
        served_name=name,
        dtype=dtype,
        quantisation=_quantisation(config),
        shape=shape,
        tool_parser=_tool_parser(" ".join([name, *names, str(config.get("model_type", ""))])),
        architecture=names[0] if names else "",
        origin=origin,
        vision=isinstance(config.get("vision_config"), dict),
    )


def _from_gguf(path: Path, force: bool) -> ModelSpec | Obstacle:
    """Return the model in a GGUF file by its header; its shape is that of the file's own weights."""
    header = gguf_file.read(path)
    if isinstance(header, Obstacle):
        return header
    spec = of_config(header.config(), path.stem, header.weight_bytes(), origin=f"the header of {path.name}")
    if isinstance(spec, Obstacle):
        if not force:
            return spec
        spec = _unknown(path.stem, spec)
    return replace(spec, location=str(path), dtype="float16", quantisation="gguf", architecture="")


def _json_file(file: Path, missing: str) -> dict[str, Any] | Obstacle:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Obstacle(f"{file.parent} has no {file.name}.", missing)
    except (OSError, ValueError, RecursionError) as error:
        return Obstacle(f"{file} is not JSON: {error}.", "Download the checkpoint again.")
    if not isinstance(content, dict):
        return Obstacle(f"{file} is not a JSON object.", "Download the checkpoint again.")
    return content


def _index_bytes(path: Path) -> int:
    """Return the bytes that a checkpoint's index names, 0 without one."""
    index = _json_file(path / "model.safetensors.index.json", "")
    metadata = {} if isinstance(index, Obstacle) else index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) else 0


def _tokenizer_limit(path: Path) -> int | None:
    """Return the longest input that the tokenizer names, to which vLLM holds the model; None without a real one."""
    settings = _json_file(path / "tokenizer_config.json", "")
    limit = None if isinstance(settings, Obstacle) else settings.get("model_max_length")
    # Tokenizers without a limit name 10^30.
    return int(limit) if isinstance(limit, int | float) and 0 < limit < 10**9 else None


def _sentence_limit(path: Path) -> int | None:
    """Return the longest input of a sentence-transformers model, to which vLLM holds it; None if it has none."""
    try:
        limit = json.loads((path / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return limit if isinstance(limit, int) and limit > 0 else None


def _dtype(config: Mapping[str, Any]) -> str:
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else {}
    name = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return name if isinstance(name, str) and name in DTYPE_BYTES else "bfloat16"


def _quantisation(config: Mapping[str, Any]) -> str | None:
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
    if weights.get("num_bits") == 4:
        return "w4a16"
    # Without a type for activations only the weights are narrow, which vLLM's CPU build can't run.
    return "int8" if groups[0].get("input_activations") or "input_activations" not in groups[0] else "w8a16"


def _guess_quantisation(name: str) -> str | None:
    lowered = name.lower()
    marks = ("awq", "gptq", "w4a16", "w8a8", "fp8", "gguf")
    first = next((mark for mark in marks if mark in lowered), None)
    return "int8" if first == "w8a8" else first


def _tool_parser(family: str) -> str | None:
    lowered = family.lower()
    parsers = (("qwen2", "hermes"), ("qwen3", "hermes"), ("llama-3", "llama3_json"), ("mistral", "mistral"))
    return next((parser for mark, parser in parsers if mark in lowered), None)
