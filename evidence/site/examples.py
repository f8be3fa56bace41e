"""Runs the examples of the documentation, by the kind of their fenced block.

yaml     is loaded; where it has settings of spillway.yaml only, it must be a configuration without an error
json     is parsed
bash     every call of `spillway` in it must have a command, arguments and options that exist
python   runs as a program of its own against a router with a stand-in for the model, in the environment of
         `make install-cookbook` where it imports a framework; an app of FastAPI is asked for an answer
js       runs in Node against such a router, with the packages of `make install-cookbook`
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
import yaml

from evidence.site.build import ROOT
from spillway_router.cli import app
from spillway_router.config.load import ConfigError, parse
from spillway_router.config.settings import Settings
from spillway_router.testing import Answer
from spillway_router.testing.harness import pair
from spillway_router.testing.streams import chat

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_MISSING: Final = re.compile(r"no backend has the name '([^']+)'")
_ADDRESS: Final = "http://127.0.0.1:8080"
_TIMEOUT_S: Final = 60
_WHOLE: Final = Answer.json(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
)
_COOKBOOK: Final = ROOT / ".venv-cookbook" / "bin" / "python"
_NODE: Final = Path(__file__).with_name("node")
_FRAMEWORK: Final = re.compile(r"^(?:from|import) (?:langchain|llama_index)", re.MULTILINE)
_ASK_APP: Final = """
from fastapi.testclient import TestClient
route = next(route for route in app.routes if getattr(route, "name", "") == "summary")
reply = TestClient(app).post(route.path, params={"text": "a", "user": "ann"})
assert reply.json() == {"summary": "Hi."}, reply.text
"""
"""Appended to an example that defines an app of FastAPI."""
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "PYTHONPATH")


@dataclass(frozen=True, slots=True)
class Example:
    """One fenced block: its page, relative to the repository, its line, its kind and its text."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.page}:{self.line}"


def examples() -> tuple[Example, ...]:
    """Return the examples of the README and of all pages, in their order."""
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    return tuple(example for page in pages for example in examples_of(page))


def examples_of(page: Path) -> Iterator[Example]:
    """Yield the examples of one page that have a kind."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    for match in _BLOCK.finditer(text):
        if match[1] in _RUNNERS:
            yield Example(name, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def missing_for(example: Example) -> str:
    """Return what must be installed before an example can run, "" if nothing must be."""
    node = example.kind == "js"
    if node and (shutil.which("node") is None or not (_NODE / "node_modules").exists()):
        return "Node or the packages of the cookbook are not installed: make install-cookbook"
    if example.kind == "python" and _FRAMEWORK.search(example.text) and not _COOKBOOK.exists():
        return "the frameworks of the cookbook are not installed: make install-cookbook"
    return ""


def fault_of(example: Example) -> str:
    """Run one example; return what is wrong with it, "" if nothing is."""
    return missing_for(example) or _RUNNERS[example.kind](example.text)


def _yaml(text: str) -> str:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return f"no YAML: {getattr(error, 'problem', '')}"
    if not isinstance(values, dict) or not set(values) <= set(Settings.model_fields):
        return ""
    environment = dict.fromkeys(_VARIABLE.findall(text), "http://127.0.0.1:9/v1")
    fault = _parsed(text, environment)
    missing = list(dict.fromkeys(_MISSING.findall(fault)))
    if missing and "backends" not in values:  # a part of a configuration may name backends of the rest
        place = 'provider: vllm, model: m, base_url: "http://127.0.0.1:9/v1"'
        rows = [f"  - {{name: {name}, {place}}}" for name in dict.fromkeys(["local", *missing])]
        fault = _parsed("\n".join([text, "backends:", *rows]), environment)
    return fault


def _parsed(text: str, environment: Mapping[str, str]) -> str:
    try:
        parse(text, environment)
    except ConfigError as error:
        return str(error)
    return ""


def _json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    return ""


def _bash(text: str) -> str:
    faults = []
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.findall(r"(?:^|&& |\| )(?:\.venv/bin/)?spillway ([^|&>#]*)", line.strip()):
            fault = _call(call)
            if fault:
                faults.append(f"spillway {call.strip()}: {fault}")
    return "; ".join(faults)


def _call(words: str) -> str:
    """Return what the command line says against a call; the command itself does not run."""
    command: Any = typer.main.get_command(app)
    parent = None
    left = shlex.split(words)
    try:
        while getattr(command, "commands", None) and left and left[0] in command.commands:
            context = command.make_context(left[0], [left[0]], parent=parent, resilient_parsing=True)
            command, parent, left = command.commands[left[0]], context, left[1:]
        if getattr(command, "commands", None) and left and not left[0].startswith("-"):
            return f"No such command {left[0]!r}"
        command.make_context("spillway", left, parent=parent)
    except SystemExit:
        return ""
    except Exception as error:  # click's usage errors, of which typer carries classes of its own
        message = getattr(error, "format_message", None)
        return repr(error) if message is None else str(message())
    return ""


def _python(text: str) -> str:
    interpreter = _COOKBOOK if _FRAMEWORK.search(text) else Path(sys.executable)
    program = text + _ASK_APP if "FastAPI()" in text else text
    return asyncio.run(_against_a_router(program, (str(interpreter), "-c"), ROOT))


def _js(text: str) -> str:
    return asyncio.run(_against_a_router(text, ("node", "--input-type=module", "-e"), _NODE))


async def _against_a_router(text: str, command: Sequence[str], folder: Path) -> str:
    answer = Answer.stream(chat("Hi").body) if "stream=True" in text else _WHOLE
    async with pair(answer, answer) as (_, _, router):
        program = text.replace(_ADDRESS, router.url)
        return await asyncio.to_thread(_run, (*command, program), folder)


def _run(words: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.stderr.strip()[-500:] if done.returncode else ""


_RUNNERS: Final = {"yaml": _yaml, "json": _json, "bash": _bash, "python": _python, "js": _js}
