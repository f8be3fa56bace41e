"""Quantise a 16-bit checkpoint to W4A16 in the compressed-tensors format: data-free rounding, GPTQ or AWQ."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from spillway_server.convert.worker import sizes
from spillway_server.convert.worker.report import JobError, report_progress
from spillway_server.convert.worker.threads import fit_threads

# Families whose matrices are recognised by name: they are rounded without building the model.
_KNOWN = ("llama", "mistral", "qwen2", "qwen3")
COPIED: tuple[str, ...] = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
COPIED += ("special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")


def quantise(
    source: Path, target: Path, method: str, group: int | None, samples: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write a W4A16 checkpoint and return the recipe as data; embeddings and the output matrix stay in 16 bit.

    `group` None takes the largest that fits. GPTQ and AWQ need calibration `samples`. Raises `JobError`.
    """
    target.mkdir(parents=True, exist_ok=True)
    if method == "rtn" and json.loads((source / "config.json").read_text()).get("model_type") in _KNOWN:
        size = _by_shard(source, target, group)
    else:
        size = _whole(source, target, method, group, samples)
    for name in COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return {"method": method, "bits": 4, "group_size": size, "kept_in_16_bit": ["embeddings", "lm_head"],
            "calibration_samples": len(samples) if method != "rtn" else 0}  # fmt: skip


def _by_shard(source: Path, target: Path, group: int | None) -> int | None:
    """Round file by file: one file of the checkpoint is in memory at a time, however large the model is."""
    from compressed_tensors.quantization import QuantizationScheme
    from llmcompressor import model_free_ptq

    matrices = {
        name.removesuffix(".weight"): shape
        for name, shape in sizes.shapes(source).items()
        if len(shape) == 2 and name.endswith(".weight") and not name.endswith("embed_tokens.weight")
    }
    size = _fit({name: (shape[0], shape[1]) for name, shape in matrices.items()}, group)
    report_progress(0.1, f"rtn, {_grouping(size)}, file by file")
    scheme = QuantizationScheme(targets=["Linear"], weights=_weights(size))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="quantise-") as place:
        # It copies everything beside the weights, and a directory may hold much more than a checkpoint.
        for name in ("config.json", "model.safetensors.index.json", *(f.name for f in source.glob("*.safetensors"))):
            if (source / name).exists():
                Path(place, name).symlink_to((source / name).absolute())
        model_free_ptq(place, target, scheme=scheme, ignore=["lm_head", "re:.*embed_tokens$"], device="cpu")
    return size


def _whole(source: Path, target: Path, method: str, group: int | None, samples: list[dict[str, Any]]) -> int | None:
    """Quantise with the whole model in memory: for methods that use activations, and for other families."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    report_progress(0.05, "loading the checkpoint")
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    stored = model.dtype
    if method == "awq":
        # Its grid search overflows in float16 on the CPU.
        model = model.float()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    size = _fit({name: (m.out_features, m.in_features) for name, m in linear.items()}, group)
    fit_threads(model)
    report_progress(0.2, f"{method}, {_grouping(size)}")
    extra: dict[str, Any] = {}
    if method != "rtn":
        extra = {"dataset": _dataset(source, samples), "num_calibration_samples": len(samples), "max_seq_length": 2048}
    oneshot(model=model, recipe=_modifiers(method, size), **extra)
    model = model.to(stored)
    report_progress(0.8, "writing")
    model.save_pretrained(target, save_compressed=True)
    return size


def _fit(matrices: dict[str, tuple[int, int]], requested: int | None) -> int | None:
    """Return the weights per scale for matrices of (rows, columns). Raises `JobError` where no kernel takes them."""
    size = fitting_group({name: columns for name, (_, columns) in matrices.items()}, requested)
    check_kernel(matrices)
    return size


def _grouping(size: int | None) -> str:
    return "one scale per row" if size is None else f"groups of {size}"


def fitting_group(widths: dict[str, int], requested: int | None) -> int | None:
    """Return the weights per scale: the requested number, else the largest of 128, 64, 32 that divides every row.

    None means one scale per row (nothing divides all rows). Raises `JobError` for a requested size that doesn't fit.
    """
    rows = {width for name, width in widths.items() if "lm_head" not in name}
    if requested:
        misfit = sorted(width for width in rows if width % requested)
        if misfit:
            raise JobError(
                f"groups of {requested} don't fit rows of {misfit[0]} weights.", "Omit --group-size to have it chosen."
            )
        return requested
    return next((size for size in (128, 64, 32) if all(width % size == 0 for width in rows)), None)


def check_kernel(matrices: dict[str, tuple[int, int]]) -> None:
    """Check before the work that vLLM's 4-bit kernels take the matrices: multiples of 32 (CPU) or 64 (Marlin)."""
    for name, (rows, columns) in matrices.items():
        if "lm_head" not in name and (rows % 32 or columns % 32):
            raise JobError(
                f"{name} is {rows} x {columns}; 4-bit kernels need multiples of 32.", "Convert with --precision 16bit."
            )


def _weights(size: int | None) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    grouped: dict[str, Any] = {"strategy": "channel"} if size is None else {"strategy": "group", "group_size": size}
    return QuantizationArgs(num_bits=4, type="int", symmetric=True, **grouped)


def _modifiers(method: str, size: int | None) -> list[Any]:
    from compressed_tensors.quantization import QuantizationScheme

    common: dict[str, Any] = {
        "config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=_weights(size))},
        "ignore": ["lm_head"],
    }
    if method == "rtn":
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**common)]
    if method == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier

        return [GPTQModifier(**common, dampening_frac=0.01)]
    if method == "awq":
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform import AWQModifier

        _disable_pinning()
        return [AWQModifier(), QuantizationModifier(**common)]
    raise JobError(f"{method!r} is not a method.", "Choose rtn, gptq or awq.")


def _disable_pinning() -> None:
    """Disable pinned memory without a GPU: llm-compressor 0.14 pins the memory of AWQ's samples, and fails without
    one."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_args, **_kwargs: None


def _dataset(source: Path, samples: list[dict[str, Any]]) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    if not samples:
        raise JobError("GPTQ and AWQ need calibration samples.", "Pass --calibration FILE.jsonl, or --method rtn.")
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = [tokenizer(as_text(tokenizer, sample), add_special_tokens=False)["input_ids"][:2048] for sample in samples]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})


def as_text(tokenizer: Any, sample: dict[str, Any]) -> str:
    """Return the whole text of a sample: the prompt through the chat template, and the answer."""
    return prompt_text(tokenizer, sample) + str(sample.get("answer") or "")


def prompt_text(tokenizer: Any, sample: dict[str, Any]) -> str:
    """Return what the model sees before it answers."""
    if "messages" in sample and not tokenizer.chat_template:
        # A base model reads the messages as lines of text.
        return "".join(f"{message['content']}\n" for message in sample["messages"])
    if "messages" in sample:
        return str(tokenizer.apply_chat_template(sample["messages"], tokenize=False, add_generation_prompt=True))
    return str(sample.get("prompt", ""))
