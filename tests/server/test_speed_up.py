"""`spillway up` hands the router what was measured of the engine that it launches."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from spillway_router.commands.up import _with_engine
from spillway_router.config.load import parse
from spillway_router.config.settings import FingerprintPart, Settings
from spillway_server.engine.client import EngineAddress
from spillway_server.engine.launcher import InstalledEngine
from spillway_server.engine.serve import Prepared
from spillway_server.engine.supervise import Launch
from spillway_server.planning import models
from spillway_server.planning.measurements import MeasuredRates
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES, Profile, cpu_profile
from spillway_server.planning.speed import ESTIMATED, MEASURED, Speed

RATES = MeasuredRates(
    prefill_tokens_per_s=5000.0,
    step_time_s=0.02,
    step_time_s_per_sequence=0.0001,
    kv_s_per_token=1e-7,
    best_sequences=32,
    prefill_us=200.0,
    decode_us=725.0,
    kv_us=0.1,
)
MEASURED_SPEED = Speed(MEASURED, "here", RATES)


def served(written: str, speed: Speed | None, profile: Profile = PROFILES["l4"]) -> Settings:
    """The settings of `written` beside an engine of this speed."""
    plan = make_plan(profile, models.recorded_model("Qwen/Qwen2.5-7B-Instruct-AWQ"), PlanOptions())
    assert isinstance(plan, EnginePlan)
    launch = Launch((), {}, EngineAddress("http://127.0.0.1:8001", "m"), Path("engine.log"))
    prepared = Prepared(
        plan, InstalledEngine(python=Path("python"), distribution="vllm", version="0.32.0", torch="2.13"), launch, speed
    )
    local = "{name: local, provider: vllm, local: true, base_url: 'http://127.0.0.1:8001/v1', model: m}"
    settings = parse(f"{written}\nbackends:\n  - {local}\n", {})
    return _with_engine("local", prepared, FingerprintPart(quantisation="awq"), settings)


def test_what_was_measured_is_where_the_router_looks() -> None:
    taken = served("gpu: {name: l4}", MEASURED_SPEED)
    assert taken.backends[0].prefill_tokens_per_s == 5000.0
    assert taken.gpu.work.model_dump() == {
        "prefill_us": Decimal("200.0"),
        "decode_us": Decimal("725.0"),
        "kv_us": Decimal("0.1"),
    }


def test_a_processor_that_router_and_engine_share_is_not_taken_at_its_best() -> None:
    taken = served("gpu: {}", MEASURED_SPEED, cpu_profile(64 * 2**30))
    assert taken.backends[0].prefill_tokens_per_s is None
    assert taken.gpu.work.decode_us == Decimal("725.0")


def test_what_the_user_wrote_stays() -> None:
    overridden = served("gpu: {work: {decode_us: 99}}", MEASURED_SPEED)
    assert (overridden.gpu.work.decode_us, overridden.gpu.work.prefill_us) == (Decimal(99), Decimal("200.0"))


def test_estimates_are_shown_but_not_written_into_the_settings() -> None:
    for speed in (Speed(ESTIMATED, "sheet", RATES), None):
        guess = served("gpu: {name: l4}", speed)
        assert guess.backends[0].prefill_tokens_per_s is None
        assert guess.gpu.work.decode_us is None
