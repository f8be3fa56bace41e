"""The table of what fits where: on the page as the plans say, every line a plan that `spillway plan` gives alone."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from spillway_hardware.gpus import NAMES
from spillway_router.cli import app
from spillway_server.planning.plan_table import MODELS, markdown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plans.md"


def test_the_page_holds_the_table_of_today() -> None:
    assert PAGE.read_text().endswith("\n\n" + markdown()), "run: spillway plan --table, and put it into docs/plans.md"


def test_every_line_is_the_plan_of_its_gpu_and_model() -> None:
    lines = markdown().splitlines()[2:]
    assert len(lines) == len(NAMES) * len(MODELS)
    for line, (gpu, model) in zip(lines, ((g, m) for g in NAMES for m in MODELS), strict=True):
        shown = CliRunner().invoke(app, ["plan", "--gpu", gpu, "--model", model])
        if "does not fit" in line:
            assert shown.exit_code == 1
            assert "does not fit" in shown.output
        else:
            flags = line.rpartition("| `")[2].removesuffix("` |")
            assert flags in " ".join(shown.output.split())


def test_what_does_not_fit_says_what_does() -> None:
    line = next(line for line in markdown(["t4"], ["Qwen/Qwen2.5-7B-Instruct"]).splitlines() if "t4" in line)
    assert "does not fit" in line
    assert "4-bit" in line
