"""One GPU table: every consumer lists exactly its GPUs, and one more entry in the file reaches all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import spillway_hardware
from spillway_hardware.gpus import BASE, FILE, NAMES, UnknownGpuError, gpu, read_table
from spillway_router.cli import app
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.settings import Settings
from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_server.planning import plan_table
from spillway_server.planning.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
CONSUMERS = """
import json
from spillway_hardware.gpus import NAMES, listed
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.settings import Settings
from spillway_router.deploy import aws, kubernetes, runpod, vast
from spillway_server.planning import plan_table
from spillway_server.planning.profiles import PROFILES
print(json.dumps({
    "names": NAMES,
    "help": listed(),
    "schema": Settings.model_json_schema()["$defs"]["GpuPart"]["properties"]["name"]["anyOf"][0]["enum"],
    "configured": Settings.model_validate({"gpu": {"name": "b200"}}).gpu.name,
    "profile": PROFILES["b200"].max_model_len,
    "planned": "| b200 |" in plan_table.markdown(),
    "prefill_ps": data_sheet_coefficients("b200").prefill_ps,
    "aws": aws.INSTANCE_TYPES["b200"][8],
    "kubernetes": kubernetes.PRODUCTS["b200"],
    "runpod": runpod.NAMES["b200"].pool,
    "vast": vast.QUERIES["b200"],
}))
"""
ADDED = """
b200:
  title: NVIDIA B200 180 GB
  memory_mib: 183359
  compute_capability: [10, 0]
  tflops: 2250
  bandwidth_gb_s: 8000
  limits: {max_model_len: 32768, max_num_seqs: 256, max_num_batched_tokens: 8192, utilisation: 0.92, queue_limit: 320}
  targets:
    runpod: {id: NVIDIA B200, pool: BLACKWELL_180}
    vast: gpu_name=B200
    aws: {8: p6-b200.48xlarge}
    kubernetes: [NVIDIA-B200]
"""


def help_of(*command: str) -> str:
    """A command's help as one line, without the frame."""
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    return " ".join(shown.output.replace("│", " ").split())


def test_every_consumer_lists_exactly_the_tables_gpus() -> None:
    schema = Settings.model_json_schema()["$defs"]["GpuPart"]["properties"]["name"]["anyOf"][0]["enum"]
    assert tuple(schema) == NAMES
    assert tuple(PROFILES) == NAMES
    rows = plan_table.markdown().splitlines()[2:]
    assert tuple(dict.fromkeys(row.split(" | ")[0].removeprefix("| ") for row in rows)) == NAMES
    assert ", ".join(NAMES[:-1]) + f" or {NAMES[-1]}" in help_of("deploy")
    assert ", ".join([*NAMES, "cpu"]) in help_of("plan")
    what_if = help_of("report", "what-if")
    assert all(name in what_if for name in NAMES)
    assert f"{', '.join(NAMES[:-1])} or {NAMES[-1]}" in (ROOT / "deploy/spillway.example.yaml").read_text()


def test_one_more_entry_reaches_every_consumer(tmp_path: Path) -> None:
    package = tmp_path / "spillway_hardware"
    shutil.copytree(Path(spillway_hardware.__file__).parent, package)
    with (package / FILE.name).open("a", encoding="utf-8") as table:
        table.write(ADDED)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CONSUMERS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    consumers = json.loads(done.stdout)
    assert consumers["names"] == consumers["schema"] == [*NAMES, "b200"]
    assert consumers["help"].endswith("or b200")
    assert consumers["configured"] == "b200"
    assert (consumers["profile"], consumers["planned"]) == (32768, True)
    assert consumers["prefill_ps"] == WorkCoefficients().prefill_ps * 312 // 2250
    assert (consumers["aws"], consumers["kubernetes"]) == ("p6-b200.48xlarge", ["NVIDIA-B200"])
    assert (consumers["runpod"], consumers["vast"]) == ("BLACKWELL_180", "gpu_name=B200")


def test_work_follows_the_data_sheets() -> None:
    assert data_sheet_coefficients("a100") == data_sheet_coefficients(BASE) == WorkCoefficients()
    seconds = {name: work_share_us(1155, 1155, 211, data_sheet_coefficients(name)) for name in NAMES}
    assert seconds["h100"] < seconds["a100-80"] < seconds["a100-40"] < seconds["l4"] < seconds["t4"]


def test_an_unknown_gpu_is_refused_with_the_known_names() -> None:
    assert gpu("H100").name == "h100"
    with pytest.raises(UnknownGpuError, match="a100-80"):
        gpu("tpu")


@pytest.mark.parametrize("damage", ["tflops", "limits", "targets"])
def test_an_incomplete_entry_is_an_error(damage: str) -> None:
    entry = dict(yaml.safe_load(ADDED)["b200"])
    del entry[damage]
    with pytest.raises((KeyError, TypeError)):
        read_table(yaml.safe_dump({"b200": entry}))


def test_a_misspelt_field_is_an_error() -> None:
    with pytest.raises(TypeError):
        read_table(ADDED.replace("tflops", "teraflops"))
