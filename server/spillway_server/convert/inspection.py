"""Look at a GGUF file before anything is installed or unpacked: whether it can be rebuilt at all. Takes a second."""

from __future__ import annotations

from pathlib import Path

from spillway_server.convert import templates
from spillway_server.convert.formats import SPLIT_RULES, TOKENIZERS, cannot_be_rebuilt
from spillway_server.convert.source import ModelSource
from spillway_server.obstacle import Obstacle
from spillway_server.planning import gguf_file
from spillway_server.planning.gguf_file import GgufHeader

_GIVE_ONE = "Pass --tokenizer DIRECTORY with the tokenizer.json of the original model."


def obstacle(source: ModelSource, tokenizer: Path | None, template: str | None) -> Obstacle | None:
    """Return why the file can't be converted, None where nothing speaks against it. `template` is the user's choice."""
    header = gguf_file.read(source.path)
    if isinstance(header, Obstacle):
        return header
    refusal = cannot_be_rebuilt(source.path.name, header)
    if refusal is None and tokenizer is None:
        refusal = _tokenizer(header)
    if refusal is None and not (template is None and templates.brought_by(tokenizer)):
        chosen = templates.choose(template, source.template, header.value("tokenizer.chat_template"))
        refusal = chosen if isinstance(chosen, Obstacle) else None
    return refusal


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
