"""What is refused before a machine is rented: every order that was accepted once and could not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_server.obstacle import Obstacle
from spillway_server.planning.layouts import Layout
from spillway_server.planning.models import Sources
from spillway_server.planning.plan import EnginePlan
from spillway_server.planning.rented import RentedMachine, plan_for

SMALL = "Qwen/Qwen2.5-7B-Instruct-AWQ"
OFFLINE = Sources(Path("/nonexistent"))


@pytest.mark.parametrize(
    ("rented", "model", "reason"),
    [
        (RentedMachine("t4"), "deepseek-ai/DeepSeek-R1", "can't run fp8"),
        (RentedMachine("t4"), "meta-llama/Llama-3.3-70B-Instruct", "does not fit"),
        (RentedMachine("a100-80"), "meta-llama/Llama-3.3-70B-Instruct", "does not fit"),
        (RentedMachine("t4"), "mistralai/Mistral-7B-Instruct-v0.3", "does not fit"),
        (RentedMachine("t4"), "mistralai/Mixtral-8x22B-Instruct-v0.1", "does not fit"),
        (RentedMachine("t4"), "Qwen/Qwen2.5-32B-Instruct-AWQ", "does not fit"),
        (RentedMachine("t4"), "someorg/my-70b-finetune", "is unknown"),
        (RentedMachine("a100-80", 4, disk_gb=80), "meta-llama/Llama-3.3-70B-Instruct", "171 GB of disk"),
        (RentedMachine("l4", disk_gb=20), "Qwen/Qwen2.5-7B-Instruct-AWQ", "GB of disk"),
        (RentedMachine("l4", has_hub_token=False), "meta-llama/Llama-3.1-8B-Instruct", "gated"),
        (RentedMachine("t4", 8, instance="g4dn.xlarge"), "Qwen/Qwen2.5-7B-Instruct-AWQ", "host's memory"),
        (RentedMachine("b200"), "demo", "not known"),
        (RentedMachine("t4"), "/tmp", "path on this machine"),
        (RentedMachine("l4", vllm_args=("--max-model-len", "0")), SMALL, "--max-model-len 0 is less than 1"),
        (RentedMachine("l4", vllm_args=("--max-num-seqs=-5",)), SMALL, "--max-num-seqs -5 is less than 1"),
        (RentedMachine("l4", vllm_args=("-tp", "0")), SMALL, "--tensor-parallel-size 0 is less than 1"),
        (RentedMachine("l4", vllm_args=("--gpu-memory-utilization", "90")), SMALL, "is no share of the memory"),
        (RentedMachine("l4", vllm_args=("-pp", "4")), SMALL, "use 4 GPUs, and 1 would be rented"),
        (RentedMachine("l4", vllm_args=("-dp", "4")), SMALL, "use 4 GPUs, and 1 would be rented"),
        (RentedMachine("l4", 4, vllm_args=()), SMALL, "use 1 of 4 GPUs"),
    ],
)
def test_what_can_not_work_is_refused(rented: RentedMachine, model: str, reason: str) -> None:
    obstacle = plan_for(rented, model, OFFLINE)
    assert isinstance(obstacle, Obstacle), obstacle
    assert reason in obstacle.reason
    assert obstacle.fix


def test_the_documented_model_uses_eight_gpus_as_eight_engines() -> None:
    plan = plan_for(RentedMachine("a100-80", 8), "Qwen/Qwen2.5-7B-Instruct-AWQ", OFFLINE)
    assert isinstance(plan, EnginePlan), plan
    assert plan.layout == Layout(data=8)
    assert plan.layout.arguments() == ("--data-parallel-size", "8")


def test_arguments_that_use_all_gpus_are_taken() -> None:
    plan = plan_for(RentedMachine("l4", 4, vllm_args=("-dp", "4")), SMALL, OFFLINE)
    assert isinstance(plan, EnginePlan), plan
    assert plan.layout.devices == 4


def test_force_rents_all_the_same_and_says_why_not() -> None:
    forced = Sources(Path("/nonexistent"), force=True)
    for rented, model in (
        (RentedMachine("t4"), "someorg/my-70b-finetune"),
        (RentedMachine("l4", disk_gb=20), "Qwen/Qwen2.5-7B-Instruct-AWQ"),
    ):
        plan = plan_for(rented, model, forced)
        assert isinstance(plan, EnginePlan), plan
        assert any("forced" in warning for warning in plan.warnings)
