"""The gate's verdicts: each limit alone can fail a model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spillway_server.convert import samples
from spillway_server.convert.gate import Bounds, EngineOutput, GateVerdict, agreement, decide, right
from spillway_server.obstacle import Obstacle
from spillway_server.planning import verification
from spillway_server.planning.models import ModelSpec, from_directory
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import cpu_profile

KNOWN = tuple(str(number) for number in range(100))
GOOD = EngineOutput(1.5, KNOWN)
BOUNDS = Bounds()


def judged(wrong: int = 0, perplexity: float | None = 1.5) -> EngineOutput:
    return EngineOutput(perplexity, ("no",) * wrong + KNOWN[wrong:])


def verdict(candidate: EngineOutput = GOOD, llama: EngineOutput | None = GOOD, bounds: Bounds = BOUNDS) -> GateVerdict:
    return decide(KNOWN, GOOD, candidate, llama, bounds)


def test_a_good_model_is_verified_with_all_figures() -> None:
    passed = verdict()
    assert passed.verified
    assert passed.reasons == ()
    assert passed.figures == {
        "samples": 100,
        "reference_perplexity": 1.5,
        "perplexity": 1.5,
        "agreement_with_reference": 1.0,
        "llama_cpp": True,
        "perplexity_ratio": 1.0,
        "reference_accuracy": 1.0,
        "accuracy": 1.0,
        "accuracy_samples": 100,
        "agreement_with_llama_cpp": 1.0,
        "llama_cpp_perplexity": 1.5,
    }


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (verdict(judged(3)), "3.0%"),
        (verdict(judged(0, 1.66)), "1.107 times"),
        (verdict(judged(0, math.nan)), "nan times"),
        (verdict(judged(0, None)), "no perplexity"),
        (verdict(llama=judged(11)), "89.0% of the greedy answers"),
        (verdict(llama=judged(0, 1.6)), "away from llama.cpp's"),
        (verdict(bounds=Bounds(min_samples=101)), "only 100 samples"),
        (verdict(bounds=Bounds(max_perplexity=1.4)), "not its kind of work"),
    ],
)
def test_each_bound_alone_refuses(refused: GateVerdict, reason: str) -> None:
    assert not refused.verified
    assert len(refused.reasons) == 1
    if "%" not in reason or "greedy" in reason:
        assert reason in refused.reasons[0]


def test_the_bounds_themselves_are_allowed() -> None:
    assert verdict(judged(2)).verified
    assert verdict(llama=judged(10)).verified
    assert verdict(llama=None).verified


def test_answers_are_compared_as_json_or_as_text() -> None:
    assert right('{"a": 1, "b": 2.0}', '{"b":2,"a":1}')
    assert right(" Paris\n", "Paris")
    assert not right('{"a":1}', '{"a":2}')
    assert not right("", "1")
    assert agreement(("a", "b"), ("a ", "c")) == 0.5
    assert agreement((), ()) == 0.0


def checkpoint(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        '{"num_attention_heads": 4, "hidden_size": 256, "num_hidden_layers": 3, "torch_dtype": "float16"}'
    )
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    return folder


def caution(folder: Path) -> str | None:
    """What a plan for this folder warns of."""
    spec = from_directory(folder, "m")
    assert isinstance(spec, ModelSpec)
    plan = make_plan(cpu_profile(8 * 1024**3), spec, PlanOptions())
    assert isinstance(plan, EnginePlan), plan
    return plan.warnings[0] if plan.warnings else None


def test_serve_warns_of_a_model_that_was_not_verified(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    assert caution(folder) is None, "a foreign checkpoint says nothing"
    sizes = verification.weight_sizes(folder)
    verification.write(
        folder, verification.Verification(verified=True, reasons=(), figures={}, source={}, recipe={}, weights=sizes)
    )
    assert caution(folder) is None
    verification.write(
        folder,
        verification.Verification(
            verified=False, reasons=("9.0% lost.",), figures={}, source={}, recipe={}, weights=sizes
        ),
    )
    assert "9.0% lost" in str(caution(folder))
    verification.write(
        folder,
        verification.Verification(
            verified=True, reasons=(), figures={}, source={}, recipe={}, weights={"model.safetensors": 999}
        ),
    )
    assert "not the ones that passed" in str(caution(folder)), "weights changed after the gate"
    (folder / verification.FILE).write_text(json.dumps({"blessed": True, "reasons": [], "weights": sizes, "format": 1}))
    assert caution(folder) is None, "format 1 is still read"
    (folder / verification.FILE).write_text("{")
    assert "can't be read" in str(caution(folder))


def test_samples(tmp_path: Path) -> None:
    general = samples.read(None, 1000)
    assert not isinstance(general, Obstacle)
    assert len(general) >= Bounds().min_samples
    assert all(sample["answer"] for sample in general)
    gate, learnt = samples.demo(range(10_000_000, 10_000_005)), samples.demo_calibration(5)
    assert not [sample for sample in gate if sample in learnt], "the gate never asks what was calibrated on"
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "answer": "b"}\n\n{"messages": [{"role": "user", "content": "x"}]}\n')
    assert len(samples.read(str(file), 10)) == 2
    assert len(samples.read(str(file), 1)) == 1


@pytest.mark.parametrize(
    "line", ["x", "[]", "{}", '{"messages": []}', '{"messages": [1]}', '{"prompt": "a", "answer": 1}']
)
def test_bad_samples_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a"}\n' + line + "\n")
    refused = samples.read(str(file), 10)
    assert isinstance(refused, Obstacle)
    assert "line 2" in refused.reason
