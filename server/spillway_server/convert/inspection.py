"""Look at a GGUF file before anything is installed or unpacked: whether it can be rebuilt at all. Takes a second."""

from __future__ import annotations

from pathlib import Path

from spillway_server.convert import templates
from spillway_server.convert.formats import ARCHITECTURES, SPLIT_RULES, TOKENIZERS
from spillway_server.convert.source import ModelSource
from spillway_server.obstacle import Obstacle
from spillway_server.planning import gguf_file
from spillway_server.planning.gguf_file import GgufHeader

_CHECKPOINT = "Download the checkpoint that the GGUF was made from and convert its directory instead."
_GIVE_ONE = "Pass --tokenizer DIRECTORY with the tokenizer.json of the original model."


def obstacle(source: ModelSource, tokenizer: Path | None, template: str | None) -> Obstacle | None:
    """Return why the file can't be converted, None where nothing speaks against it. `template` is the user's choice."""
    header = gguf_file.read(source.path)
    if isinstance(header, Obstacle):
        return header
    refusal = _architecture(source.path, header)
    if refusal is None and tokenizer is None:
        refusal = _tokenizer(header)
    if refusal is None and not (template is None and templates.brought_by(tokenizer)):
        chosen = templates.choose(template, source.template, header.value("tokenizer.chat_template"))
        refusal = chosen if isinstance(chosen, Obstacle) else None
    return refusal


def _architecture(path: Path, header: GgufHeader) -> Obstacle | None:
    name = header.architecture
    if name not in ARCHITECTURES:
        return Obstacle(
            f"{path.name} is of architecture {name or 'unknown'!r}; {', '.join(ARCHITECTURES)} (Mistral counts as "
            "llama) can be converted from GGUF.",
            _CHECKPOINT,
        )
    if int(header.value("{arch}.expert_count") or 0) > 1:
        return Obstacle(f"{path.name} is a mixture of experts, which can't be rebuilt from GGUF.", _CHECKPOINT)
    if int(header.value("split.count") or 1) > 1:
        return Obstacle(f"{path.name} is one part of a split GGUF.", "Merge the parts first: llama-gguf-split --merge.")
    return None


def _tokenizer(header: GgufHeader) -> Obstacle | None:
    kind, rule = header.value("tokenizer.ggml.model"), str(header.value("tokenizer.ggml.pre") or "")
    if kind not in TOKENIZERS:
        return Obstacle(
            f"the GGUF file's tokenizer is of kind {kind!r}; {', '.join(TOKENIZERS)} can be rebuilt.", _GIVE_ONE
        )
    if kind == "gpt2" and rule not in SPLIT_RULES:
        return Obstacle(
            f"the GGUF file splits text by a rule named {rule or 'nothing'!r}, which is unknown.", _GIVE_ONE
        )
    return None
