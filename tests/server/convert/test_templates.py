"""Ollama's templates recognised, rendered, or refused."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.conftest import ENGINE_PYTHON

from spillway_server.convert import templates
from spillway_server.obstacle import Obstacle

CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
CHATML_RANGE = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
LLAMA3 = (
    "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}"
    "{{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>"
)
MISTRAL = "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]"
LLAMA2 = "[INST] <<SYS>>{{ .System }}<</SYS>>\n\n{{ .Prompt }} [/INST]"
PHI3 = (
    "{{ if .System }}<|system|>\n{{ .System }}<|end|>\n{{ end }}{{ if .Prompt }}<|user|>\n{{ .Prompt }}<|end|>\n"
    "{{ end }}<|assistant|>\n{{ .Response }}<|end|>"
)
ZEPHYR = (
    "{{- if .System }}\n<|system|>\n{{ .System }}\n</s>\n{{- end }}\n<|user|>\n{{ .Prompt }}\n</s>\n<|assistant|>\n"
)
ALPACA = "{{ .System }}\n\n### Instruction:\n{{ .Prompt }}\n\n### Response:\n"
TOOLS = "{{- if .Tools }}# Tools\n{{ range .Tools }}{{ . }}{{ end }}{{ end }}" + CHATML


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (CHATML, "chatml"),
        (CHATML_RANGE, "chatml"),
        (LLAMA3, "llama3"),
        (MISTRAL, "mistral"),
        (LLAMA2, "llama2"),
        (PHI3, "phi3"),
        (ZEPHYR, "zephyr"),
        (ALPACA, "alpaca"),
        (TOOLS, None),
        (CHATML.replace("user", "human"), None),
        (CHATML.replace("<|im_end|>", "<|end|>"), None),
        ("{{ .Prompt }}", None),
        ("", None),
    ],
)
def test_known_shapes(template: str, name: str | None) -> None:
    assert templates.recognise(template) == name


_RENDER = """
import json, sys
from jinja2 import Environment
case = json.load(sys.stdin)
jinja = Environment(trim_blocks=True, lstrip_blocks=True).from_string(case["template"])
rendered = jinja.render(messages=case["messages"], add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
print(json.dumps(rendered))
"""


def rendered(name: str, messages: list[dict[str, str]]) -> str:
    """What the engine's own Jinja makes of a template."""
    if not ENGINE_PYTHON.exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    case = json.dumps({"template": templates.NAMED[name], "messages": messages})
    done = subprocess.run(
        [str(ENGINE_PYTHON), "-c", _RENDER], input=case, capture_output=True, text=True, timeout=60, check=True
    )
    return str(json.loads(done.stdout))


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello"
            "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant"
            "<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Why? [/INST]"),
        ("llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello</s>[INST] Why? [/INST]"),
        (
            "phi3",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nWhy?<|end|>\n"
            "<|assistant|>\n",
        ),
        (
            "alpaca",
            "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello\n\n### Instruction:\nWhy?\n\n### Response:\n",
        ),
    ],
)
def test_what_the_templates_print(name: str, text: str) -> None:
    assert rendered(name, TURNS) == text


def test_which_template_wins() -> None:
    assert templates.choose("llama3", CHATML, "{{ own }}") == (templates.NAMED["llama3"], "llama3, as requested")
    assert templates.choose("{{ mine }}", CHATML, None) == ("{{ mine }}", "given")
    assert templates.choose(None, CHATML, "{{ own }}") == (
        templates.NAMED["chatml"],
        "Ollama's TEMPLATE, of the chatml shape",
    )
    chosen = templates.choose(None, TOOLS, "{{ own }}")
    assert not isinstance(chosen, Obstacle)
    assert chosen[0] == "{{ own }}"


@pytest.mark.parametrize(("given", "ollama"), [(None, TOOLS), (None, None), ("klingon", CHATML)])
def test_no_template_is_refused_with_what_to_pass(given: str | None, ollama: str | None) -> None:
    refused = templates.choose(given, ollama, None)
    assert isinstance(refused, Obstacle)
    assert "chatml" in refused.fix
