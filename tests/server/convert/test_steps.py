"""Steps: done once, done again when anything changed, never begun without room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spillway_server.convert.steps import ConversionStep, StepDone, StepEvent, StepMarkers, StepStarted
from spillway_server.obstacle import Obstacle


class Bench:
    """A ledger, and a step that writes one file and counts how often it worked."""

    def __init__(self, folder: Path, free: int = 10**12) -> None:
        self.told: list[StepEvent] = []
        self.out = folder / "out"
        self.worked = 0
        self.ledger = StepMarkers(folder / "markers", self.told.append, lambda _place: free)

    def run(self, inputs: dict[str, Any] | None = None, needs: int = 0) -> Any:
        def work(progress: Any) -> dict[str, Any]:
            self.worked += 1
            progress(0.5, "half")
            self.out.mkdir(exist_ok=True)
            (self.out / "weights").write_text("weights")
            return {"figure": 7}

        return self.ledger.run(ConversionStep("unpack", inputs or {"sha256": "a"}, self.out, needs), work)


def test_a_step_is_done_once(tmp_path: Path) -> None:
    assert Bench(tmp_path).run() == {"figure": 7}
    again = Bench(tmp_path)
    assert again.run() == {"figure": 7}
    assert again.worked == 0
    assert isinstance(again.told[0], StepDone)
    assert again.told[0].resumed


@pytest.mark.parametrize("fault", ["changed", "cut", "missing", "stranger", "input", "marker"])
def test_whatever_changed_is_done_again(tmp_path: Path, fault: str) -> None:
    Bench(tmp_path).run()
    bench = Bench(tmp_path)
    weights = bench.out / "weights"
    match fault:
        case "changed":
            weights.write_text("Weights")
        case "cut":
            weights.write_text("weig")
        case "missing":
            weights.unlink()
        case "stranger":
            (bench.out / "other").write_text("x")
        case "marker":
            (tmp_path / "markers" / "unpack.json").write_text('{"inputs"')
    bench.run({"sha256": "b"} if fault == "input" else None)
    assert bench.worked == 1


def test_a_crash_leaves_no_marker(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def crash(_progress: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.ledger.run(ConversionStep("unpack", {"sha256": "a"}, bench.out, 0), crash)
    bench.run()
    assert bench.worked == 1


def test_a_refusal_leaves_no_marker(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    obstacle = Obstacle("no", "yes")
    assert bench.ledger.run(ConversionStep("unpack", {"sha256": "a"}, bench.out, 0), lambda _p: obstacle) is obstacle
    bench.run()
    assert bench.worked == 1


def test_no_room_no_work(tmp_path: Path) -> None:
    bench = Bench(tmp_path, free=10**9)
    refused = bench.run(needs=2 * 10**9)
    assert isinstance(refused, Obstacle)
    assert "2.07 GB" in refused.reason
    assert "1.00 GB are free" in refused.reason
    assert bench.worked == 0
    assert not any(isinstance(event, StepStarted) for event in bench.told)
    assert bench.run(needs=9 * 10**8) == {"figure": 7}
