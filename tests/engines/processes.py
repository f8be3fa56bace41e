"""Real engines beside vLLM, each in a process of its own; a test is skipped where its engine is not installed."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES_PYTHON = ROOT / ".venv-engines" / "bin" / "python"
DEMO_GGUF = ROOT / "server/spillway_server/demo_model/weights/gguf/spillway-demo-Q8_0.gguf"
LLAMA_PYTHON = ROOT / ".venv-llama" / "bin" / "python"
"""The Python with llama-cpp-python, which `spillway convert` uses as a judge; its server needs the extra [server]."""
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


@contextmanager
def serving_llama_cpp_python(*options: str) -> Iterator[str]:
    """Serve the demo model with llama-cpp-python, and yield its address. Skips the test where it is not installed."""
    probe = [str(LLAMA_PYTHON), "-c", "import llama_cpp.server.app"]
    if not LLAMA_PYTHON.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("llama-cpp-python's server is not installed: pip install 'llama-cpp-python[server]' in .venv-llama")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(LLAMA_PYTHON), "-m", "llama_cpp.server", "--model", str(DEMO_GGUF), "--model_alias", "demo"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024", "--n_threads", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    if not any("Uvicorn running on" in line for line in process.stdout):
        raise AssertionError(f"llama-cpp-python's server ended with status {process.wait(STOP_LIMIT_S)}")
    reader = threading.Thread(target=_drained, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        reader.join(STOP_LIMIT_S)
        _ended(process)


def _drained(lines: Iterable[str]) -> None:
    """Read lines to their end, so that whoever writes them never waits."""
    for _ in lines:
        pass


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
