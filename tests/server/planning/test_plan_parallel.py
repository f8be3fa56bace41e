"""vLLM's own ways to spread a model pass through: tensor, pipeline, data and expert parallel, and Ray."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from spillway_server.planning.arguments import parse, value_of
from spillway_server.planning.models import TABLE
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES

MODEL = TABLE["Qwen/Qwen2.5-7B-Instruct"]
FLAGS = {
    "tensor": ("--tensor-parallel-size", "2"),
    "pipeline": ("--pipeline-parallel-size", "2"),
    "data": ("--data-parallel-size", "4"),
    "data, by nodes": ("--data-parallel-size-local", "2"),
    "data, head node": ("--data-parallel-address", "10.0.0.1"),
    "data through Ray": ("--data-parallel-backend", "ray"),
    "Ray": ("--distributed-executor-backend", "ray"),
    "nodes without Ray": ("--nnodes", "2"),
}


def planned(*vllm_args: str, devices: int = 1) -> EnginePlan:
    plan = make_plan(PROFILES["a100-80"], MODEL, PlanOptions(devices=devices, vllm_args=vllm_args))
    assert isinstance(plan, EnginePlan), plan
    return plan


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("joined", [True, False], ids=["--flag=value", "--flag value"])
def test_a_flag_reaches_vllm_once_and_as_it_was_given(name: str, joined: bool) -> None:
    flag, value = FLAGS[name]
    given = (f"{flag}={value}",) if joined else (flag, value)
    arguments = planned(*given).arguments
    flags = parse(arguments)
    assert not isinstance(flags, str)
    assert value_of(flags, flag) == value
    assert [one.name for one in flags].count(flag) == 1
    # Nothing else of the plan is lost by it.
    others = parse(planned().arguments)
    assert not isinstance(others, str)
    assert {one.name for one in others} <= {one.name for one in flags}


def test_all_together_with_a_switch() -> None:
    given = [word for pair in FLAGS.values() for word in pair]
    arguments = planned(*given, "--enable-expert-parallel").arguments
    for flag, value in FLAGS.values():
        assert arguments[arguments.index(flag) + 1] == value
    assert "--enable-expert-parallel" in arguments


def test_the_users_tensor_parallel_size_wins_over_ours_and_counts_in_the_memory() -> None:
    ours, theirs = planned(devices=2), planned("--tensor-parallel-size", "2")
    assert ours.arguments.count("--tensor-parallel-size") == theirs.arguments.count("--tensor-parallel-size") == 1
    assert ours.kv_tokens is not None
    assert theirs.kv_tokens is not None
    assert theirs.kv_tokens > (planned().kv_tokens or 0)


def test_the_command_line_shows_them() -> None:
    from spillway_router.cli import app

    command = ["plan", "--gpu", "a100-80", "--model", "Qwen/Qwen2.5-7B-Instruct", "--json"]
    shown = CliRunner().invoke(app, [*command, "--vllm-arg=--pipeline-parallel-size=2", "--vllm-arg=--nnodes=2"])
    assert shown.exit_code == 0, shown.output
    assert '"--pipeline-parallel-size' in shown.output
    assert '"--nnodes' in shown.output
