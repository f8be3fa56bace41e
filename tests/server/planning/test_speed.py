"""How fast a plan is: as measured on such hardware, else estimated, else not known; and what follows for the router."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.settings import Settings
from spillway_server.planning import measurements, models, profiles
from spillway_server.planning.hardware import Gpu, Hardware
from spillway_server.planning.measurements import (
    ClosestRun,
    MeasuredRates,
    MeasuredRun,
    ResultError,
    Subject,
    closest,
    path_of,
)
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES
from spillway_server.planning.speed import ESTIMATED, MEASURED, Speed, settings, speed_of

AWQ = "Qwen/Qwen2.5-7B-Instruct-AWQ"
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
L4 = Subject(hardware="NVIDIA L4", device="l4", devices=1, model=AWQ, quantisation="awq")


def planned(gpu: str, model: str = AWQ, *flags: str) -> EnginePlan:
    plan = make_plan(PROFILES[gpu], models.recorded_model(model), PlanOptions(vllm_args=flags))
    assert isinstance(plan, EnginePlan)
    return plan


def with_gpu(name: str) -> Hardware:
    return Hardware((Gpu(name, 24 * 2**30, (8, 9), "580"),), 8, 64 * 2**30)


def run(flags: tuple[str, ...] = (), date: str = "2026-01-01", subject: Subject = L4) -> MeasuredRun:
    return MeasuredRun(subject=subject, date=date, engine_version="0.32.0", flags=flags, rates=RATES)


def test_a_measurement_on_such_hardware_comes_before_an_estimate() -> None:
    plan = planned("l4")
    speed = speed_of(plan, with_gpu("NVIDIA L4 24 GB"), (run(plan.arguments),))
    assert speed is not None
    assert (speed.origin, speed.rates) == (MEASURED, RATES)
    assert speed.basis == "measured on NVIDIA L4, 2026-01-01, vLLM 0.32.0, the same flags"
    assert all(row.unit for row in speed.rows())


@pytest.mark.parametrize(
    "other",
    [
        replace(L4, device="t4"),
        replace(L4, devices=2),
        replace(L4, model="Qwen/Qwen2.5-7B-Instruct"),
        replace(L4, quantisation=None),
    ],
)
def test_a_measurement_of_something_else_is_not_taken(other: Subject) -> None:
    speed = speed_of(planned("l4"), with_gpu("NVIDIA L4"), (run(subject=other),))
    assert speed is not None
    assert speed.origin == ESTIMATED
    assert "none of it was measured" in speed.basis


def test_a_processor_stands_only_for_itself() -> None:
    here = Subject(hardware="cpu A 2 cores", device="cpu", devices=1, model="demo", quantisation=None)
    assert here.covers(here)
    assert not here.covers(replace(here, hardware="cpu B 64 cores"))
    assert L4.covers(replace(L4, hardware="NVIDIA L4 24 GB"))


def test_of_several_runs_the_one_with_the_fewest_other_flags_counts_then_the_newest() -> None:
    old, other = run(("--max-num-seqs", "64")), run(("--max-num-seqs", "32"), "2026-03-01")
    new = run(("--max-num-seqs=64", "--port", "1234"), "2026-02-01")
    nearest = closest((other, new, old), L4, ("--host", "x", "--max-num-seqs", "64"))
    assert nearest == ClosestRun(new, ())
    nearest = closest((other,), L4, ("--max-num-seqs", "64", "--dtype", "half"))
    assert nearest == ClosestRun(other, ("--dtype", "--max-num-seqs"))
    shown = speed_of(planned("l4", AWQ, "--max-num-seqs=48"), with_gpu("NVIDIA L4"), (run(planned("l4").arguments),))
    assert shown is not None
    assert shown.basis.endswith("other --max-num-seqs")
    assert closest((), L4, ()) is None


def test_the_estimates_base_is_the_cost_reports_own() -> None:
    """Without a measurement `gpu.name` and the plan say the same of the same GPU with an 8B model in 16 bit."""
    plan = planned("a100-80", "meta-llama/Llama-3.1-8B-Instruct")
    speed = speed_of(plan, with_gpu("A100"), ())
    assert speed is not None
    sheet = data_sheet_coefficients("a100-80")
    assert speed.work_us()["prefill_us"] * 1e6 == pytest.approx(sheet.prefill_ps, rel=1e-4)
    assert speed.work_us()["decode_us"] * 1e6 == pytest.approx(sheet.decode_ps, rel=1e-4)
    assert speed.work_us()["kv_us"] * 1e6 == pytest.approx(sheet.kv_ps, rel=1e-4)


def test_estimates_follow_the_data_sheets() -> None:
    def of(gpu: str, model: str = AWQ) -> MeasuredRates:
        speed = speed_of(planned(gpu, model), with_gpu(gpu), ())
        assert speed is not None
        return speed.rates

    assert of("t4").prefill_tokens_per_s < of("l4").prefill_tokens_per_s < of("h100").prefill_tokens_per_s
    assert of("l4").step_time_s < of("l4", "Qwen/Qwen2.5-7B-Instruct").step_time_s  # a quarter of the bytes
    assert of("a100-80").step_time_s < of("l4").step_time_s


def test_no_estimate_where_there_is_no_data_sheet() -> None:
    spec = models.demo()
    assert isinstance(spec, models.ModelSpec)
    machine = Hardware((), 4, 16 * 2**30, cpu_name="Some Processor")
    plan = make_plan(profiles.of_machine(machine), spec, PlanOptions())
    assert isinstance(plan, EnginePlan)
    assert speed_of(plan, machine, ()) is None
    assert machine.title == "cpu Some Processor 4 cores"


def test_work_is_of_one_gpu_and_the_router_takes_the_settings() -> None:
    speed = Speed(MEASURED, "here", RATES, devices=2)
    part = settings(speed, "local", 64)
    backend = {"provider": "vllm", "local": True, "base_url": "http://127.0.0.1:8001/v1", "model": "m"}
    written = {**part, "backends": [{**backend, **part["backends"][0]}]}  # type: ignore[index]
    taken = Settings.model_validate(yaml.safe_load(yaml.safe_dump(written)))
    assert taken.gpu.work.decode_us == Decimal(1450)
    assert (taken.backends[0].prefill_tokens_per_s, taken.backends[0].max_sequences) == (5000.0, 64)


def test_plan_shows_where_its_speed_is_from() -> None:
    shown = CliRunner().invoke(app, ["plan", "--gpu", "l4", "--model", AWQ, "--json"])
    speed = json.loads(shown.stdout)["speed"]
    assert speed["origin"] in (MEASURED, ESTIMATED)
    assert speed["work_us"].keys() == {"prefill_us", "decode_us", "kv_us"}
    text = CliRunner().invoke(app, ["plan", "--gpu", "l4", "--model", AWQ]).stdout
    assert speed["basis"].split(";")[0] in " ".join(text.split())
    part = CliRunner().invoke(app, ["plan", "--gpu", "l4", "--model", AWQ, "--settings", "box"]).stdout
    assert part.startswith(f"# {speed['basis']}")
    assert yaml.safe_load(part)["backends"][0]["name"] == "box"


def test_files_are_read_and_damaged_ones_left_out(tmp_path: Path) -> None:
    one = {"date": "2026-01-01", "versions": {"engine": "0.32.0"}, "flags": [], "rates": asdict(RATES)}
    path = path_of(L4, tmp_path)
    assert path.name == "nvidia-l4-qwen-qwen2.5-7b-instruct-awq-awq.json"
    path.write_text(json.dumps({"format": 2, **asdict(L4), "runs": [one]}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, "runs": [one]}))
    assert measurements.shipped(tmp_path) == (run(),)
    with pytest.raises(ResultError, match="lacks"):
        measurements.runs_of({"runs": [one]})


def test_shipped_results_name_their_hardware_and_lie_where_they_are_looked_for() -> None:
    paths = sorted(measurements.FOLDER.glob("*.json"))
    assert paths
    for path in paths:
        content = measurements.load(path)
        (*_, newest) = measurements.runs_of(content)
        assert path == path_of(newest.subject)
        assert newest.subject.hardware
        assert newest.rates.prefill_tokens_per_s > 0
        assert all(each["machine"] and each["versions"] and each["loads"] for each in content["runs"])
