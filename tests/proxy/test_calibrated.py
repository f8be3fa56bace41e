"""A calibration file changes what confidence means: its threshold counts, whole answers and streams go by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.harness import cloud, local, routing, run, settings
from tests.proxy.streams import DONE, data

from spillway_router.config import ConfigError
from spillway_router.testing import Answer, FaultUpstream

STAGE: dict[str, Any] = {
    "features": ["min"],
    "fill": [-1.0],
    "centre": [0.0],
    "scale": [1.0],
    "weights": [1.0],
    "bias": 0.0,
    "curve": {"x": [-2.0, 0.0], "y": [0.0, 1.0]},
}
"""P(right) falls from 1 where the least sure token is certain to 0 where its log-probability is -2."""
CALIBRATION: dict[str, Any] = {
    "format": "spillway-calibration/1",
    "key": {"model": "m", "quantisation": "*", "template": "*", "task": "*"},
    "certificate": {"threshold": 0.6, "alpha": 0.05, "delta": 0.1, "n": 100, "coverage": 0.5, "errors": 1},
    "answer": STAGE,
    "stages": [{**STAGE, "tokens": 1}],
    "value": None,
}


def choice(text: str, logprob: float) -> dict[str, Any]:
    score = {"content": [{"token": text, "logprob": logprob, "top_logprobs": []}]}
    return {"index": 0, "logprobs": score, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}


def whole(text: str, logprob: float) -> Answer:
    return Answer.json({"choices": [choice(text, logprob)], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})


def streamed(text: str, logprob: float) -> Answer:
    found = choice(text, logprob)
    return Answer.stream(data({"choices": [{**found, "delta": {"content": text}}]}) + DONE)


def rule(folder: Path, calibration: dict[str, Any] | str, more: str = "") -> str:
    file = folder / "calibration.json"
    file.write_text(calibration if isinstance(calibration, str) else json.dumps(calibration))
    return f"confidence: {{escalate_to: [cloud], calibration: '{file}'{more}}}\n"


@pytest.mark.parametrize(("logprob", "probability", "kept"), [(-0.2, 0.9, True), (-1.0, 0.5, False)])
@pytest.mark.parametrize("stream", [False, True])
def test_confidence_is_the_calibrated_probability(
    logprob: float, probability: float, kept: bool, stream: bool, tmp_path: Path
) -> None:
    make = streamed if stream else whole

    async def main() -> None:
        async with (
            FaultUpstream(make("weak", logprob)) as engine,
            FaultUpstream(make("strong", 0.0)) as other,
            routing(settings(local(engine), cloud(other), more=rule(tmp_path, CALIBRATION)), tmp_path) as router,
        ):
            reply = await router.chat({"stream": stream})
            assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(probability)
            assert (b"weak" in reply.content) == kept
            assert (b"strong" in reply.content) != kept
            assert reply.headers["x-spillway-decision"] == ("local" if kept else "escalated")

    run(main)


def test_the_users_own_threshold_goes_first(tmp_path: Path) -> None:
    async def main() -> None:
        more = rule(tmp_path, CALIBRATION, ", threshold: 0.4")
        async with (
            FaultUpstream(whole("weak", -1.0)) as engine,
            FaultUpstream() as other,
            routing(settings(local(engine), cloud(other), more=more), tmp_path) as router,
        ):
            assert b"weak" in (await router.chat()).content
            assert not other.seen

    run(main)


def test_a_calibration_of_another_model_is_not_applied(tmp_path: Path) -> None:
    foreign = {**CALIBRATION, "key": {**CALIBRATION["key"], "model": "other"}}

    async def main() -> None:
        async with (
            FaultUpstream(whole("weak", -0.2)) as engine,
            FaultUpstream() as other,
            routing(settings(local(engine), cloud(other), more=rule(tmp_path, foreign)), tmp_path) as router,
        ):
            reply = await router.chat()
            assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.8187, abs=1e-4)  # exp(-0.2)

    run(main)


@pytest.mark.parametrize("text", ["", '{"format": "other"}', "not JSON"])
def test_a_file_that_can_not_be_used_is_a_mistake(text: str, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"confidence\.calibration.*spillway calibrate"):
            async with routing(settings(local("http://127.0.0.1:9/v1"), more=_without_tier(tmp_path, text))):
                pass

    run(main)


def _without_tier(folder: Path, text: str) -> str:
    more = rule(folder, text).replace("escalate_to: [cloud], ", "")
    if not text:
        (folder / "calibration.json").unlink()
    return more
