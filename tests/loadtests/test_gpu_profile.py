"""The profile of an engine: known step times are found again, and settings follow that the router takes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from loadtests.gpu_profile import engine, result
from loadtests.gpu_profile.__main__ import app, examine
from loadtests.gpu_profile.fit import Decode, FitError, rates, steady_step
from loadtests.gpu_profile.probe import Grid
from loadtests.scaleout import sites
from loadtests.simulator.engine import EngineModel
from typer.testing import CliRunner

from spillway_router.settings import Settings

STEP, PER_SEQUENCE, KV = 0.0097, 0.00003, 8.7e-8


def decodes() -> list[Decode]:
    return [
        Decode(n, n * context, STEP + PER_SEQUENCE * n + KV * n * context) for n in (1, 8, 64) for context in (40, 2000)
    ]


def test_rates_are_found_again_from_exact_timings() -> None:
    found = rates(13_500.0, decodes())
    assert found.step_time_s == pytest.approx(STEP, rel=1e-3)
    assert found.step_time_s_per_sequence == pytest.approx(PER_SEQUENCE, rel=1e-3)
    assert found.kv_us == pytest.approx(0.087, rel=1e-3)
    assert found.best_sequences == 64
    assert found.decode_us == pytest.approx(1e6 * (STEP / 64 + PER_SEQUENCE), rel=1e-3)
    assert found.prefill_us == pytest.approx(1e6 / 13_500, rel=1e-3)


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
    # The first one's tokens come slowly while the second one is read, then both at 10 ms.
    first = [0.1 * i for i in range(5)] + [0.5 + 0.01 * i for i in range(40)]
    second = [0.5 + 0.01 * i for i in range(40)]
    found = steady_step([first, second])
    assert found is not None
    assert found[0] == pytest.approx(0.01)
    assert steady_step([first, [5.0 + 0.01 * i for i in range(40)]]) is None


def test_the_fake_engines_curve_is_recovered() -> None:
    model, slow = EngineModel(), 2.0  # slow, so that a busy machine's delays count less
    times, kv = model.step_times_s(), model.kv_bytes_per_token / model.kv_bytes_per_s
    starter = sites.fake("--scale", str(slow))
    with tempfile.TemporaryDirectory() as folder, sites.engines(starter, Path(folder), ("one",)) as (fake,):
        target = engine.running(fake.base_url, ["--fake"])
        grid = Grid((1, 4, 16), context=3000, output=80, prefill_prompts=4)
        probed, found = examine(target, grid, lambda _line: None)
    full = 2048 / (times[2048] + model.overhead_s)
    assert found.prefill_tokens_per_s == pytest.approx(full / slow, rel=0.25)
    assert found.step_time_s == pytest.approx(slow * (times[1] + model.overhead_s), rel=0.25)
    assert found.kv_s_per_token == pytest.approx(slow * kv, rel=0.5)
    assert found.decode_us == pytest.approx(1e6 * slow * (times[16] + model.overhead_s) / 16, rel=0.25)
    assert [row.sequences for row in probed.rows] == [1, 4, 16, 4, 4]


def run(flags: list[str], decode_us: float = 178.1) -> dict[str, Any]:
    found = {"prefill_tokens_per_s": 13500.0, "best_sequences": 64, "prefill_us": 74.1, "decode_us": decode_us}
    return {"date": "2026-01-01", "flags": flags, "rates": {**found, "kv_us": 0.087}}


def test_settings_follow_from_a_file_and_the_router_takes_them(tmp_path: Path) -> None:
    path = result.path_of("NVIDIA A100-SXM4 80GB", "org/Model 8B", tmp_path)
    assert path.name == "nvidia-a100-sxm4-80gb-org-model-8b.json"
    result.add(path, "NVIDIA A100", "m", run(["--max-num-seqs", "64"]))
    result.add(path, "NVIDIA A100", "m", run([]))
    result.add(path, "NVIDIA A100", "m", run([], decode_us=200.5))  # the same flags again: replaced
    assert len(json.loads(path.read_text())["runs"]) == 2
    shown = CliRunner().invoke(app, ["settings", str(path)])
    assert shown.exit_code == 0
    taken = Settings.model_validate(yaml.safe_load(shown.stdout))
    assert str(taken.gpu.work.decode_us) == "200.5"
    assert (taken.backends[0].prefill_tokens_per_s, taken.backends[0].max_sequences) == (13500.0, 64)
    with pytest.raises(result.ResultError, match="holds NVIDIA A100"):
        result.add(path, "L4", "m", run([]))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "x.json"
    other.write_text("[]")
    shown = CliRunner().invoke(app, ["settings", str(other)])
    assert shown.exit_code == 1
    assert "no result file" in shown.stderr


def test_published_results_name_their_hardware_and_give_settings() -> None:
    for path in result.FOLDER.glob("*.json"):
        found = result.load(path)
        assert path == result.path_of(found["hardware"], found["model"])
        assert all(one["machine"] and one["versions"] and one["loads"] for one in found["runs"])
        Settings.model_validate(yaml.safe_load(result.settings_of(found)))
