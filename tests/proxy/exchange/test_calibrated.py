"""A calibration file defines what confidence means, for whole answers and for streams, and sets the threshold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.helpers import CALIBRATION, STAGE, rule, streamed, whole
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.config.assemble import assembly_of
from spillway_router.config.load import ConfigError, Loaded, parse, read
from spillway_router.config.settings import FingerprintPart, Settings
from spillway_router.core.confidence.calibration import Calibration
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, routing, settings
from spillway_server import demo_model


@pytest.mark.parametrize(("logprob", "probability", "kept"), [(-0.2, 0.9, True), (-1.0, 0.5, False)])
@pytest.mark.parametrize("stream", [False, True])
async def test_confidence_is_the_calibrated_probability(
    logprob: float, probability: float, kept: bool, stream: bool, tmp_path: Path
) -> None:
    make = streamed if stream else whole
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


async def test_the_users_own_threshold_goes_first(tmp_path: Path) -> None:
    more = rule(tmp_path, CALIBRATION, ", threshold: 0.4")
    async with (
        FaultUpstream(whole("weak", -1.0)) as engine,
        FaultUpstream() as other,
        routing(settings(local(engine), cloud(other), more=more), tmp_path) as router,
    ):
        assert b"weak" in (await router.chat()).content
        assert not other.seen


async def test_a_calibration_of_another_model_is_not_applied(tmp_path: Path) -> None:
    foreign = {**CALIBRATION, "key": {**CALIBRATION["key"], "model": "other"}}
    async with (
        FaultUpstream(whole("weak", -0.2)) as engine,
        FaultUpstream() as other,
        routing(settings(local(engine), cloud(other), more=rule(tmp_path, foreign)), tmp_path) as router,
    ):
        reply = await router.chat()
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.8187, abs=1e-4)  # exp(-0.2)


@pytest.mark.parametrize("text", ["", '{"format": "other"}', "not JSON"])
async def test_a_file_that_can_not_be_used_is_a_mistake(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"confidence\.calibration.*spillway calibrate"):
        async with routing(settings(local("http://127.0.0.1:9/v1"), more=_without_tier(tmp_path, text))):
            pass


def _without_tier(folder: Path, text: str) -> str:
    more = rule(folder, text).replace("escalate_to: [cloud], ", "")
    if not text:
        (folder / "calibration.json").unlink()
    return more


# what it was made for, and what is served

MARKS = {"weights": "aaaa", "template": "bbbb", "quantisation": "awq"}
MADE_FOR: dict[str, Any] = {**CALIBRATION, "key": {**CALIBRATION["key"], **MARKS}}


def served(engine: str, marks: Mapping[str, str], name: str = "local") -> str:
    fingerprint = ", ".join(f'{part}: "{mark}"' for part, mark in marks.items())
    return local(engine, name).removesuffix("}") + f", fingerprint: {{{fingerprint}}}}}"


def warnings(text: str) -> list[str]:
    assembly = assembly_of(Loaded(parse(text, {}), None, text, {}), date(2026, 11, 21))
    return [warning.problem for warning in assembly.warnings if warning.where == "confidence.calibration"]


@pytest.mark.parametrize("part", sorted(MARKS))
async def test_a_calibration_for_other_weights_template_or_quantisation_is_not_applied(
    part: str, tmp_path: Path
) -> None:
    other = {**MARKS, part: "other"}
    async with FaultUpstream(whole("weak", -0.2)) as engine, FaultUpstream() as strong:
        text = settings(served(engine.url, other), cloud(strong), more=rule(tmp_path, MADE_FOR))
        (problem,) = warnings(text)
        assert f"{part} other, not {MARKS[part]}" in problem
        assert "conservative rule" in problem
        async with routing(text, tmp_path) as router:
            reply = await router.chat()
            assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.8187, abs=1e-4)  # exp(-0.2)
            assert router.runtime.services.config().policy.confidence.threshold == 0.8  # not the certified 0.6


@pytest.mark.parametrize("marks", [MARKS, {}, {"weights": "aaaa"}])
async def test_a_calibration_is_applied_where_nothing_known_differs(marks: dict[str, str], tmp_path: Path) -> None:
    async with FaultUpstream(whole("weak", -0.2)) as engine, FaultUpstream() as strong:
        text = settings(served(engine.url, marks), cloud(strong), more=rule(tmp_path, MADE_FOR))
        assert warnings(text) == []
        async with routing(text, tmp_path) as router:
            assert float((await router.chat()).headers["x-spillway-confidence"]) == pytest.approx(0.9)


async def test_of_two_engines_under_one_name_only_the_right_one_is_judged_by_it(tmp_path: Path) -> None:
    async with (
        FaultUpstream(whole("right", -0.2)) as right,
        FaultUpstream(whole("other", -0.2)) as other,
        FaultUpstream() as strong,
    ):
        lines = served(right.url, MARKS, "right"), served(other.url, {**MARKS, "weights": "cccc"}, "other")
        text = settings(*lines, cloud(strong), more=rule(tmp_path, MADE_FOR))
        async with routing(text, tmp_path) as router:
            for name, confidence in (("right", 0.9), ("other", math.exp(-0.2))):
                reply = await router.chat({"model": f"{name}/m"}, x_spillway_min_confidence="0.1")
                assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(confidence, abs=1e-4)
            assert router.runtime.services.config().scoring.document_calibration is None


def test_check_tells_what_nobody_verified(tmp_path: Path) -> None:
    more = rule(tmp_path, MADE_FOR) + f"ledger: {{url: 'sqlite:///{tmp_path / 'l.db'}'}}\n"
    path = tmp_path / "spillway.yaml"
    for marks, missing in (({}, "weights and template and quantisation"), ({"weights": "aaaa"}, "template and quant")):
        path.write_text(settings(served("http://127.0.0.1:9/v1", marks), cloud("http://127.0.0.1:9/v1"), more=more))
        shown = CliRunner().invoke(app, ["check", "--config", str(path), "--offline", "--json"])
        problems = [w["problem"] for w in json.loads(shown.stdout)["warnings"] if w["where"] == "backends.local"]
        assert [missing in problem for problem in problems] == [True], shown.stdout
    path.write_text(settings(served("http://127.0.0.1:9/v1", MARKS), cloud("http://127.0.0.1:9/v1"), more=more))
    shown = CliRunner().invoke(app, ["check", "--config", str(path), "--offline"])
    assert "unverified" not in shown.stdout


def test_the_demo_models_fingerprint_is_what_its_calibration_was_made_for() -> None:
    """`spillway up` therefore applies the shipped file, and another model named `demo` does not get it."""
    shown = CliRunner().invoke(app, ["check", "--fingerprint", "demo", "--json"])
    marks = FingerprintPart(**json.loads(shown.stdout)["fingerprint"])
    shipped = Calibration.from_json(Path(demo_model.__file__).with_name("calibration.json").read_bytes())
    compared = shipped.key.compare(marks.fingerprint())
    assert (compared.differs, compared.unverified) == ((), ())
    assert shipped.alternatives == 2


def test_what_up_knows_of_its_engine_survives_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a ledger in the working directory would be refused
    path = tmp_path / "spillway.yaml"
    path.write_text("backends: [{name: local, provider: vllm, model: m, base_url: 'http://127.0.0.1:9/v1'}]\n")

    def serving(settings: Settings) -> Settings:
        part = settings.backends[0].model_copy(update={"fingerprint": FingerprintPart(**MARKS)})
        return settings.model_copy(update={"backends": (part,)})

    again = read(str(path), {}).served_by(serving).again().again()
    assert again.settings.backends[0].fingerprint == FingerprintPart(**MARKS)


async def test_as_many_alternatives_are_asked_for_and_counted_as_the_calibration_was_made_of(tmp_path: Path) -> None:
    """A client may ask for more alternatives, but scores of alternatives depend on their number."""
    tail = {**STAGE, "features": ["tail"], "curve": {"x": [0.0, 10.0], "y": [0.0, 1.0]}}
    calibration = {**CALIBRATION, "answer": tail, "made": {"top_logprobs": 3}}
    tops = [{"token": t, "logprob": p} for t, p in (("a", -0.1), ("b", -3.0), ("c", -5.0), ("d", -9.0), ("e", -10.0))]

    def says(count: int) -> Answer:
        score = {"content": [{**tops[0], "top_logprobs": tops[:count]}]}
        message = {"role": "assistant", "content": "a"}
        return Answer.json({"choices": [{"index": 0, "logprobs": score, "finish_reason": "stop", "message": message}]})

    async with FaultUpstream(says(3)) as engine, FaultUpstream() as strong:
        text = settings(
            local(engine), cloud(strong), more=rule(tmp_path, calibration, ", top_logprobs: 5, threshold: 0")
        )
        async with routing(text, tmp_path) as router:
            plain = await router.chat()
            assert engine.seen[0].json["top_logprobs"] == 3
            engine.answer = says(5)
            asked = await router.chat({"logprobs": True, "top_logprobs": 5})
            assert engine.seen[1].json["top_logprobs"] == 5
            for reply in (plain, asked):
                assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.4)  # (3 + 5) / 2
