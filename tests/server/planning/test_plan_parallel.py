"""vLLM's own ways to spread a model pass through: tensor, pipeline, data and expert parallel, and Ray."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from spillway_server.obstacle import Obstacle
from spillway_server.planning.arguments import parse, value_of
from spillway_server.planning.layouts import Layout, why_not
from spillway_server.planning.models import recorded_model
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES

MODEL = recorded_model("Qwen/Qwen2.5-7B-Instruct")
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
    theirs = planned("--tensor-parallel-size", "2")
    assert theirs.arguments.count("--tensor-parallel-size") == 1
    assert planned("--tensor-parallel-size", "2", devices=2).layout == Layout(2, 1, 1)
    assert theirs.kv_tokens is not None
    assert theirs.kv_tokens > (planned().kv_tokens or 0)


def test_the_command_line_shows_them() -> None:
    from spillway_router.cli import app

    command = ["plan", "--gpu", "a100-80", "--model", "Qwen/Qwen2.5-7B-Instruct", "--json"]
    shown = CliRunner().invoke(app, [*command, "--vllm-arg=--pipeline-parallel-size=2", "--vllm-arg=--nnodes=2"])
    assert shown.exit_code == 0, shown.output
    assert '"--pipeline-parallel-size' in shown.output
    assert '"--nnodes' in shown.output


@pytest.mark.parametrize(
    ("gpu", "gpus", "model", "layout"),
    [
        ("a100-80", 8, "Qwen/Qwen2.5-7B-Instruct-AWQ", Layout(1, 1, 8)),
        ("t4", 8, "Qwen/Qwen2.5-7B-Instruct-AWQ", Layout(1, 1, 8)),
        ("l4", 3, "Qwen/Qwen2.5-7B-Instruct-AWQ", Layout(1, 1, 3)),
        ("t4", 4, "Qwen/Qwen2.5-7B-Instruct", Layout(2, 1, 2)),
        ("a100-80", 4, "meta-llama/Llama-3.3-70B-Instruct", Layout(2, 1, 2)),
        ("h100", 8, "Qwen/Qwen3-235B-A22B", Layout(8, 1, 1)),
    ],
)
def test_devices_become_engines_before_they_split_a_model(gpu: str, gpus: int, model: str, layout: Layout) -> None:
    plan = make_plan(PROFILES[gpu], recorded_model(model), PlanOptions(devices=gpus))
    assert isinstance(plan, EnginePlan), plan
    assert plan.layout == layout
    assert plan.layout.devices == gpus
    flags = parse(plan.arguments)
    assert not isinstance(flags, str)
    sizes = [value_of(flags, f"--{kind}-parallel-size") for kind in ("tensor", "data")]
    assert sizes == [str(size) if size > 1 else None for size in (layout.tensor, layout.data)]


def test_heads_that_do_not_divide_are_refused_with_what_does() -> None:
    # vLLM 0.32: "Total number of attention heads (28) must be divisible by tensor parallel size (8)".
    obstacle = make_plan(PROFILES["a100-80"], MODEL, PlanOptions(vllm_args=("--tensor-parallel-size=8",)))
    assert isinstance(obstacle, Obstacle)
    assert "28 attention heads" in obstacle.reason
    assert "1, 2 or 4" in obstacle.fix


def test_groups_of_weights_must_divide_as_well() -> None:
    shape = recorded_model("Qwen/Qwen2.5-7B-Instruct-AWQ").shape
    assert shape is not None
    # 18,944 columns are 148 groups of 128: they divide by 4, and not by 8.
    assert why_not(shape, 4) is None
    assert "groups of 128" in str(why_not(replace(shape, heads=32, kv_heads=8), 8))
    assert why_not(replace(shape, heads=32, kv_heads=8, group=0), 8) is None


def test_a_latent_is_kept_whole_on_every_device() -> None:
    shape = recorded_model("deepseek-ai/DeepSeek-V3").shape
    assert shape is not None
    assert shape.kv_elements(1) == shape.kv_elements(8) == 576
    grouped = recorded_model("meta-llama/Llama-3.1-8B-Instruct").shape
    assert grouped is not None
    assert [grouped.kv_elements(split) for split in (1, 8, 16)] == [2048, 256, 256]
