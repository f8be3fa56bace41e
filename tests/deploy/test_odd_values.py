"""Names, tags and configurations with odd characters: what goes in is what the chart and the container get."""

from __future__ import annotations

import base64
import subprocess
from decimal import Decimal
from typing import Any

import pytest
import yaml
from evidence.deploy_commands import ROOT
from tests.deploy.tools import tool

from spillway_router.deploy.kubernetes import Kubernetes
from spillway_router.deploy.order import Command, DeploymentOrder, Request
from spillway_router.deploy.runpod import RunPod

ODD = "# é😀 \\ $HOME ${X} %s 'one' \"two\" - : {{ .Values }} `id`  \nx: '{{ $é }} \\ % # \"-x'\n"
NEEDED = "ledger: {url: 'sqlite:////data/spillway.db'}\nlisten: 0.0.0.0:8080"
TAGS = ["1e3", "08", "12e5", "y", "n", "0o7", "0x1f", "1_000", "20261201", "1234e567", "true", "null", "v1.0"]


def order(gpu: str, image: str = "r/i:1", text: str = "") -> DeploymentOrder:
    return DeploymentOrder(gpu=gpu, model="demo", price_per_hour=Decimal(1), image=image, yaml=text)


def rendered(values: str) -> dict[str, dict[str, Any]]:
    """Return what helm makes of values, by kind."""
    chart = str(ROOT / "deploy" / "kubernetes" / "spillway")
    command = [tool("helm"), "template", "spillway", chart, "--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout) if one}


def values_of(one: DeploymentOrder) -> str:
    (step,) = Kubernetes().create(one).steps
    assert isinstance(step, Command)
    return step.standard_input


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_stays_the_text_that_it_is(tag: str) -> None:
    workload = rendered(values_of(order("l4", f"r/i:{tag}")))["StatefulSet"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"r/i:{tag}"


def test_a_configuration_comes_whole_out_of_the_chart() -> None:
    for text in (f"{ODD}{NEEDED}\n\n", f"\n{ODD}{NEEDED}", NEEDED, f"{NEEDED}\n\n\n"):
        assert rendered(values_of(order("l4", text=text)))["ConfigMap"]["data"]["spillway.yaml"] == text


def test_runpod_gets_no_words_that_it_would_replace() -> None:
    for text in (ODD, "a: '{{ RUNPOD_SECRET_X }}'\n"):
        (step,) = RunPod().create(order("a100-80", text=text)).steps
        assert isinstance(step, Request)
        assert step.body is not None
        variables = step.body["env"]
        assert "SPILLWAY_YAML" not in variables
        assert base64.b64decode(variables["SPILLWAY_YAML_BASE64"]).decode() == text
