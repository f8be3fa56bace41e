"""What can be rebuilt from a GGUF file, known without any package: architectures, tokenizers, and how they split text.

The names are llama.cpp's (`general.architecture`, `tokenizer.ggml.model`, `tokenizer.ggml.pre`). The expressions are
those of the models' published tokenizer.json files; an unknown name is refused, since a wrong split changes answers
silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from spillway_server.obstacle import Obstacle

CHECKPOINT_INSTEAD = "Download the checkpoint that the GGUF was made from and convert its directory instead."
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How a byte-level BPE tokenizer cuts text before merging: regular expressions, one after the other; whether digits
    stand alone; whether GPT-2's own expression follows; whether a whole word of the vocabulary needs no merges."""

    expressions: tuple[str, ...] = ()
    single_digits: bool = False
    gpt2: bool = False
    whole_words: bool = False


_RULES = (
    (("llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2"), SplitRule((_LLAMA3,), whole_words=True)),
    (("dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "grok-2"), SplitRule((_LLAMA3,))),
    (("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), SplitRule((_QWEN2,))),
    (("tekken", "pixtral"), SplitRule((_TEKKEN,), whole_words=True)),
    (("gpt-4o", "llama4"), SplitRule((_GPT4O,))),
    (("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), SplitRule(gpt2=True)),
    (("smollm", "starcoder", "refact", "codeshell", "command-r"), SplitRule(single_digits=True, gpt2=True)),
)  # fmt: skip
SPLIT_RULES: Mapping[str, SplitRule] = MappingProxyType({name: rule for names, rule in _RULES for name in names})
TOKENIZERS = ("gpt2", "llama", "t5")
"""Byte-level BPE, SentencePiece BPE, and SentencePiece Unigram."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture that can be rebuilt: the class and model type of its checkpoint; whether llama.cpp stores the
    rows of q and k with rotated pairs side by side, and whether it stores norms with 1 added."""

    model_class: str
    model_type: str
    paired_rows: bool = False
    norms_plus_one: bool = False


class GgufMetadata(Protocol):
    """What a GGUF file says of itself, whoever reads it."""

    @property
    def architecture(self) -> str:
        """The architecture's name, empty where the file names none."""

    def value(self, key: str, otherwise: Any = None) -> Any:
        """Return a metadata value; `{arch}` in the key stands for the architecture."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture("LlamaForCausalLM", "llama", paired_rows=True),
        "qwen2": Architecture("Qwen2ForCausalLM", "qwen2"),
        "qwen3": Architecture("Qwen3ForCausalLM", "qwen3"),
        "gemma2": Architecture("Gemma2ForCausalLM", "gemma2", norms_plus_one=True),
        "gemma3": Architecture("Gemma3ForCausalLM", "gemma3_text", norms_plus_one=True),
        "phi3": Architecture("Phi3ForCausalLM", "phi3"),
        "granite": Architecture("GraniteForCausalLM", "granite", paired_rows=True),
        "smollm3": Architecture("SmolLM3ForCausalLM", "smollm3", paired_rows=True),
        "olmo2": Architecture("Olmo2ForCausalLM", "olmo2"),
        "qwen2moe": Architecture("Qwen2MoeForCausalLM", "qwen2_moe"),
        "qwen3moe": Architecture("Qwen3MoeForCausalLM", "qwen3_moe"),
        "olmoe": Architecture("OlmoeForCausalLM", "olmoe"),
        "mixtral": Architecture("MixtralForCausalLM", "mixtral", paired_rows=True),
    }
)
MIXTURES = ("qwen2moe", "qwen3moe", "olmoe", "mixtral")
"""The architectures with experts. GGUF files call Mixtral `llama`, like the dense models that it was made from."""


def family_of(header: GgufMetadata) -> str:
    """Return the key in `ARCHITECTURES` of a file's weights, whether there is such a key or not."""
    has_experts = int(header.value("{arch}.expert_count") or 0) > 1
    return "mixtral" if header.architecture == "llama" and has_experts else header.architecture


def cannot_be_rebuilt(file: str, header: GgufMetadata) -> Obstacle | None:
    """Return why the weights of a file of this name can't be rebuilt as a checkpoint; None if they can."""
    name = family_of(header)
    if name not in ARCHITECTURES or header.architecture == "mixtral":
        return Obstacle(
            f"{file} is of architecture {header.architecture or 'unknown'!r}; {', '.join(ARCHITECTURES)} (Mistral "
            "counts as llama) can be converted from GGUF.",
            CHECKPOINT_INSTEAD,
        )
    if name not in MIXTURES and int(header.value("{arch}.expert_count") or 0) > 1:
        return Obstacle(
            f"{file} is a mixture of experts of architecture {name!r}; {', '.join(MIXTURES)} can be rebuilt from GGUF.",
            CHECKPOINT_INSTEAD,
        )
    if int(header.value("split.count") or 1) > 1:
        return Obstacle(f"{file} is one part of a split GGUF.", "Merge the parts first: llama-gguf-split --merge.")
    return None
