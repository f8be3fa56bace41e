"""The commands as a user runs them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.stdout if "--json" in words else result.output


@pytest.mark.parametrize("gpu", ["t4", "l4", "a10g", "a100-40", "a100-80", "h100", "cpu", "T4"])
def test_plan_for_every_gpu_by_name(gpu: str) -> None:
    status, text = run("plan", "--gpu", gpu, "--json")
    assert status == 0, text
    plan = json.loads(text)
    assert "--max-num-queued-reqs" in plan["command"]
    assert plan["kv_tokens"] >= plan["max_model_len"]
    assert all(row["unit"] for row in plan["memory"])


def test_plan_as_tables() -> None:
    status, text = run("plan", "--gpu", "t4", "--model", "Qwen/Qwen2.5-7B-Instruct-AWQ")
    assert status == 0
    for part in ("KV per token", "56.0 KiB", "7.11 GiB", "133,152 tokens", "vllm serve Qwen/Qwen2.5-7B-Instruct-AWQ"):
        assert part in text


def test_plan_of_this_machine() -> None:
    status, text = run("plan", "--model", "demo", "--json")
    assert status == 0
    assert json.loads(text)["served_model"] == "demo"


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("plan", "--gpu", "t4", "--model", "meta-llama/Llama-3.1-8B-Instruct"), 1, "does not fit"),
        (("plan", "--gpu", "voodoo"), 2, "a100-80"),
        (("plan", "--model", "./missing"), 1, "neither a directory nor a hub name"),
        (("serve", "--device", "tpu"), 2, "auto, gpu, cpu"),
        (("serve", "--model", "./missing", "--engine-python", "/nowhere/python"), 1, "make install"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], status: int, part: str) -> None:
    code, text = run(*words)
    assert code == status
    assert part in text


def test_a_refusal_as_json() -> None:
    status, text = run("plan", "--gpu", "t4", "--vllm-arg=--dtype=bfloat16", "--json")
    assert status == 1
    assert "bfloat16" in json.loads(text)["refused"]["reason"]


def test_doctor_lists_its_checks() -> None:
    status, text = run("doctor", "--json")
    report = json.loads(text)
    assert report["ok"] is (status == 0)
    assert {"Python", "memory", "disk", "vLLM", "startup files", "demo model"} <= {
        check["name"] for check in report["checks"]
    }
