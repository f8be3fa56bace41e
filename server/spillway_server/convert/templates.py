"""Translate Ollama's TEMPLATE (Go text/template) into a Jinja chat template, where it has one of the known shapes.

A shape is the template's skeleton: what it prints in order, with control words (if, range, else, end) removed and
variables written as ¤Name¤; blanks don't count. Two templates with the same skeleton print the same turns. Anything
else (tools, reasoning) is refused rather than guessed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import MappingProxyType

from spillway_server.obstacle import Obstacle

_LOOP = "{%- for message in messages -%}"
_END = "{%- endfor -%}"
_SYSTEM_FIRST = (
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] -%}"
    "{%- set turns = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
)
_CHATML = (
    f"{_LOOP}{{{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}}}{_END}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_LLAMA3 = (
    "{{- bos_token -}}"
    f"{_LOOP}{{{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}}}"
    f"{{{{- message['content'] | trim + '<|eot_id|>' -}}}}{_END}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
_INST = (
    f"{{{{- bos_token -}}}}{_SYSTEM_FIRST}{{%- for message in turns -%}}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '[INST] ' + (system + '\\n\\n' if loop.first and system else '') + message['content'] + ' [/INST]' -}}"
    f"{{%- else -%}}{{{{- ' ' + message['content'] + eos_token -}}}}{{%- endif -%}}{_END}"
)
_LLAMA2 = _INST.replace("(system + '\\n\\n' ", "('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' ")
_PHI3 = (
    f"{_LOOP}{{{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}}}{_END}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
_ZEPHYR = (
    f"{_LOOP}{{{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' -}}}}{_END}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
_ALPACA = (
    f"{_SYSTEM_FIRST}{{%- if system -%}}{{{{- system + '\\n\\n' -}}}}{{%- endif -%}}"
    "{%- for message in turns -%}{%- if message['role'] == 'user' -%}"
    "{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}"
    f"{{%- else -%}}{{{{- '### Response:\\n' + message['content'] + '\\n\\n' -}}}}{{%- endif -%}}{_END}"
    "{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}"
)
NAMED = MappingProxyType(
    {
        "chatml": _CHATML,
        "llama3": _LLAMA3,
        "llama2": _LLAMA2,
        "mistral": _INST,
        "phi3": _PHI3,
        "zephyr": _ZEPHYR,
        "alpaca": _ALPACA,
        "none": "",
    }
)

_IM = "<|im_start|>{} ¤{}¤<|im_end|>"
_H3 = "<|start_header_id|>{}<|end_header_id|> ¤{}¤<|eot_id|>"
_SKELETONS = MappingProxyType(
    {
        f"{_IM.format('system', 'System')} {_IM.format('user', 'Prompt')} <|im_start|>assistant": "chatml",
        f"{_IM.format('¤Role¤', 'Content')} <|im_start|>assistant": "chatml",
        f"{_H3.format('system', 'System')}{_H3.format('user', 'Prompt')}"
        "<|start_header_id|>assistant<|end_header_id|>": "llama3",
        f"{_H3.format('¤Role¤', 'Content')}<|start_header_id|>assistant<|end_header_id|>": "llama3",
        "[INST] <<SYS>> ¤System¤ <</SYS>> ¤Prompt¤ [/INST]": "llama2",
        "[INST] ¤System¤ ¤Prompt¤ [/INST]": "mistral",
        "<|system|> ¤System¤<|end|> <|user|> ¤Prompt¤<|end|> <|assistant|>": "phi3",
        "<|system|> ¤System¤</s> <|user|> ¤Prompt¤</s> <|assistant|>": "zephyr",
        "¤System¤ ### Instruction: ¤Prompt¤ ### Response:": "alpaca",
    }
)
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.S)
_VARIABLE = re.compile(r"^\.([A-Za-z]+)$")
_CONTROL = re.compile(r"^(if|range|else|end|with|/\*)\b|^/\*")
# What follows the answer belongs to the next turn; `.Response` itself only marks the answer's position.
_AFTER_ANSWER = re.compile(r"¤Response¤.*", re.S)


def skeleton(template: str) -> str | None:
    """Return the template's skeleton, None when it does more than print turns (calls functions, declares variables)."""
    unsupported = False

    def reduced(match: re.Match[str]) -> str:
        nonlocal unsupported
        body = match[1]
        variable = _VARIABLE.match(body)
        if variable:
            return f"¤{variable[1]}¤"
        # A range over messages declares `$i, $_`; its conditions may test for the last one. Both print nothing.
        if _CONTROL.match(body) and "Tool" not in body and "Think" not in body:
            return ""
        unsupported = unsupported or not body.startswith("- ")
        return ""

    text = _ACTION.sub(reduced, template)
    text = _AFTER_ANSWER.sub("", text)
    return None if unsupported else " ".join(text.split())


def recognise(template: str) -> str | None:
    """Return the name of the known shape that an Ollama template has, or None."""
    shape = skeleton(template)
    if shape is None:
        return None
    return next(
        (name for skeleton, name in _SKELETONS.items() if _without_blanks(skeleton) == _without_blanks(shape)), None
    )


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def brought_by(tokenizer: Path | None) -> bool:
    """Return whether a tokenizer's directory has a chat template of its own."""
    if tokenizer is None:
        return False
    if (tokenizer / "chat_template.jinja").is_file():
        return True
    try:
        settings = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def choose(given: str | None, ollama: str | None, embedded: str | None) -> tuple[str, str] | Obstacle:
    """Return the chat template to use and where it comes from.

    The user's choice (a name of `NAMED`, or Jinja text) wins over Ollama's template where its shape is known, which
    wins over the file's own Jinja.
    """
    if given is not None:
        if given in NAMED:
            return NAMED[given], f"{given}, as requested"
        if "{%" in given or "{{" in given:
            return given, "given"
        return Obstacle(f"{given!r} is not a chat template.", f"Give a file with Jinja, or one of {', '.join(NAMED)}.")
    name = recognise(ollama) if ollama else None
    if name is not None:
        return NAMED[name], f"Ollama's TEMPLATE, of the {name} shape"
    if embedded:
        return embedded, "the GGUF file's own" + (" (Ollama's TEMPLATE has no known shape)" if ollama else "")
    what = "Ollama's TEMPLATE has no known shape" if ollama else "the model carries no chat template"
    return Obstacle(
        f"{what}, and a wrong one would spoil every answer.",
        f"Pass --chat-template with a Jinja file (tokenizer_config.json of the original has it), or one of "
        f"{', '.join(NAMED)} (none: a base model, for /v1/completions only).",
    )
