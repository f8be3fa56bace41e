"""The profile of an engine: known step times are recovered, and the router accepts the settings that follow."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from loadtests.gpu_profile import engine, result
from loadtests.gpu_profile.__main__ import app, examine, this_place
from loadtests.gpu_profile.fit import Decode, FitError, rates, steady_step
from loadtests.gpu_profile.probe import Grid
from loadtests.scaleout import sites
from typer.testing import CliRunner

from spillway_router.core.replay.engine import EngineModel
from spillway_server.planning import hardware, measurements
from spillway_server.planning.measurements import ResultError, Subject

STEP, PER_SEQUENCE, KV = 0.0097, 0.00003, 8.7e-8


def decodes() -> list[Decode]:
    return [
        Decode(n, n * context, STEP + PER_SEQUENCE * n + KV * n * context) for n in (1, 8, 64) for context in (40, 2000)
    ]


def test_rates_are_found_again_from_exact_timings() -> None:
    fitted = rates(13_500.0, decodes())
    assert fitted.step_time_s == pytest.approx(STEP, rel=1e-3)
    assert fitted.step_time_s_per_sequence == pytest.approx(PER_SEQUENCE, rel=1e-3)
    assert fitted.kv_us == pytest.approx(0.087, rel=1e-3)
    assert fitted.best_sequences == 64
    assert fitted.decode_us == pytest.approx(1e6 * (STEP / 64 + PER_SEQUENCE), rel=1e-3)
    assert fitted.prefill_us == pytest.approx(1e6 / 13_500, rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "timings", "message"),
    [
        (0.0, decodes(), "prefill rate"),
        (1000.0, [d for d in decodes() if d.sequences == 8], "two loads"),
        (1000.0, [d for d in decodes() if d.kv_tokens == 40 * d.sequences], "two contexts"),
    ],
)
def test_timings_that_say_too_little_are_refused(rate: float, timings: list[Decode], message: str) -> None:
    with pytest.raises(FitError, match=message):
        rates(rate, timings)


def test_a_step_is_measured_only_while_all_requests_decode() -> None:
    # The tokens of the first come slowly while the engine reads the second; then both come every 10 ms.
    first = [0.1 * i for i in range(5)] + [0.5 + 0.01 * i for i in range(40)]
    second = [0.5 + 0.01 * i for i in range(40)]
    step = steady_step([first, second])
    assert step is not None
    assert step[0] == pytest.approx(0.01)
    assert steady_step([first, [5.0 + 0.01 * i for i in range(40)]]) is None


def test_the_fake_engines_curve_is_recovered() -> None:
    model, slow = EngineModel(), 2.0  # slow, so that a busy machine's delays count less
    times, kv = model.step_times_s(), model.kv_bytes_per_token / model.kv_bytes_per_s
    starter = sites.fake("--scale", str(slow))
    with tempfile.TemporaryDirectory() as folder, sites.engines(starter, Path(folder), ("one",)) as (fake,):
        target = engine.running(fake.base_url, ["--fake"])
        grid = Grid((1, 4, 16), context=3000, output=80, prefill_prompts=4)
        probed, fitted = examine(target, grid, lambda _line: None)
    full = 2048 / (times[2048] + model.overhead_s)
    assert fitted.prefill_tokens_per_s == pytest.approx(full / slow, rel=0.25)
    assert fitted.step_time_s == pytest.approx(slow * (times[1] + model.overhead_s), rel=0.25)
    assert fitted.kv_s_per_token == pytest.approx(slow * kv, rel=0.5)
    assert fitted.decode_us == pytest.approx(1e6 * slow * (times[16] + model.overhead_s) / 16, rel=0.25)
    assert [row.sequences for row in probed.rows] == [1, 4, 16, 4, 4]


def run(flags: list[str], decode_us: float = 178.1) -> dict[str, Any]:
    fitted = rates(13_500.0, decodes())
    versions = {"engine": "0.32.0"}
    return {
        "date": "2026-01-01",
        "flags": flags,
        "versions": versions,
        "rates": {**asdict(fitted), "decode_us": decode_us},
    }


def test_settings_follow_from_a_file_and_runs_of_the_same_flags_replace_each_other(tmp_path: Path) -> None:
    subject = Subject(
        hardware="NVIDIA A100-SXM4-80GB", device="a100-80", devices=1, model="org/Model 8B", quantisation=None
    )
    path = measurements.path_of(subject, tmp_path)
    assert path.name == "nvidia-a100-sxm4-80gb-org-model-8b.json"
    result.add(path, subject, run([]))
    result.add(path, subject, run(["--max-num-seqs", "48"]))
    result.add(path, subject, run(["--max-num-seqs", "48"], decode_us=200.5))
    assert len(json.loads(path.read_text())["runs"]) == 2
    shown = CliRunner().invoke(app, ["settings", str(path)])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("# measured on NVIDIA A100-SXM4-80GB with org/Model 8B, 2026-01-01")
    part = yaml.safe_load(shown.stdout)
    assert part["gpu"]["work"]["decode_us"] == "200.5"
    assert part["backends"] == [{"name": "local", "prefill_tokens_per_s": 13500.0, "max_sequences": 48}]
    with pytest.raises(ResultError, match="holds NVIDIA A100"):
        result.add(path, replace(subject, device="l4"), run([]))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "x.json"
    other.write_text("[]")
    shown = CliRunner().invoke(app, ["settings", str(other)])
    assert shown.exit_code == 1
    assert "is not a result file" in shown.stderr


def test_saved_results_are_found_by_hardware_model_and_quantisation(tmp_path: Path) -> None:
    starter = sites.fake("--scale", "1")
    with tempfile.TemporaryDirectory() as place, sites.engines(starter, Path(place), ("one",)) as (fake,):
        words = ["measure", "--base-url", fake.base_url, "--hardware", "NVIDIA L4", "--kind", "l4", "--save"]
        small = ["--concurrency", "1,4", "--context", "1200", "--output", "64", "--prompts", "2"]
        done = CliRunner().invoke(app, [*words, *small, "--folder", str(tmp_path), "--flags", "--dtype half"])
    assert done.exit_code == 0, done.output
    (stored,) = measurements.shipped(tmp_path)
    assert stored.subject == Subject(hardware="NVIDIA L4", device="l4", devices=1, model="demo", quantisation=None)
    assert stored.flags == ("--dtype", "half")
    assert measurements.path_of(stored.subject, tmp_path).exists()


def test_this_machine_is_named_as_the_plan_names_it() -> None:
    name, kind = this_place("cpu", 1)
    assert (name, kind) == (hardware.detect().without_gpus().title, "cpu")
    assert "cores" in name
