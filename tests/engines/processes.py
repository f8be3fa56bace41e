"""Real engines beside vLLM, each in a process of its own; a test is skipped where its engine is not installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES_PYTHON = ROOT / ".venv-engines" / "bin" / "python"
DEMO_GGUF = ROOT / "server/spillway_server/demo_model/weights/gguf/spillway-demo-Q8_0.gguf"
STOP_LIMIT_S = 30.0


@dataclass(slots=True)
class LlamaServer:
    """A running llama.cpp server with the demo model. `url` ends in /v1."""

    url: str
    options: tuple[str, ...]
    process: subprocess.Popen[str]

    @property
    def root(self) -> str:
        """The address without /v1."""
        return self.url.removesuffix("/v1")

    def kill(self) -> None:
        """End it as the kernel would."""
        self.process.kill()
        _ended(self.process)

    def start_again(self) -> None:
        """Start it at the same port."""
        port = self.root.rpartition(":")[2]
        self.process = _process((*self.options, "--port", port))
        assert _address(self.process) == self.root


@contextmanager
def serving_llama(*options: str) -> Iterator[LlamaServer]:
    """Serve the demo model with llama.cpp. Skips the test where it is not installed."""
    if not ENGINES_PYTHON.exists():
        pytest.skip("llama.cpp's server is not installed: run `make install-engines`")
    process = _process(options)
    server = LlamaServer(_address(process) + "/v1", options, process)
    try:
        yield server
    finally:
        server.process.terminate()
        _ended(server.process)


def _process(options: tuple[str, ...]) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("llama_server.py")
    command = [str(ENGINES_PYTHON), str(script), str(DEMO_GGUF), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _ended(process: subprocess.Popen[str]) -> None:
    """Wait for the end, and kill what does not come to it."""
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_LIMIT_S)
    if process.stdout is not None:
        process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://"), f"llama.cpp's server ended with status {process.wait(STOP_LIMIT_S)}"
    return address
