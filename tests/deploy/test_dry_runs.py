"""`spillway deploy TARGET --dry-run`: price first, nothing done, no secret shown, wrong orders refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml
from evidence.deploy_commands import MODEL, TARGETS
from tests.deploy.in_process import dry_run, spillway

from spillway_router.config.load import parse

SECRETS = {
    "RUNPOD_API_KEY": "rpa_secret_of_runpod",
    "VAST_API_KEY": "secret_of_vast",
    "AWS_SECRET_ACCESS_KEY": "secret_of_aws",
    "GROQ_API_KEY": "gsk_secret_of_groq",
}


@pytest.mark.parametrize("target", TARGETS)
def test_price_comes_first_and_nothing_is_done(tmp_path: Path, target: str) -> None:
    done = dry_run(tmp_path, target, env=SECRETS)
    assert done.status == 0, done.err
    first, second = done.out.splitlines()[:2]
    price = TARGETS[target][TARGETS[target].index("--price") + 1]
    assert first.split()[0] == "price"
    assert f"${price} per hour" in first
    assert f"${float(price) * 730:,.2f} per month" in second
    assert done.out.rstrip().endswith("Dry run: nothing was done.")
    assert list(tmp_path.iterdir()) == []
    assert not any(value in done.out + done.err for value in SECRETS.values())
    assert dry_run(tmp_path, target, env=SECRETS).out == done.out


@pytest.mark.parametrize("target", TARGETS)
def test_the_machines_configuration_is_valid(tmp_path: Path, target: str) -> None:
    done = dry_run(tmp_path, target, "--gpus", "1", "--json", *CLOUD)
    plan = json.loads(done.out)
    settings = parse(_configuration(target, plan), {"GROQ_API_KEY": "k"})
    assert settings.server is not None
    assert settings.server.model == MODEL
    assert f"{settings.gpu.price_per_hour:f}" == plan["per_hour_usd"]
    assert [b.name for b in settings.backends] == ["local", "groq"]
    assert settings.listen == "0.0.0.0:8080"
    assert settings.ledger.url.startswith("sqlite:////")


def _configuration(target: str, plan: dict[str, list[dict[str, object]]]) -> str:
    step = plan["steps"][-1 if target == "vast" else 0]
    if target == "runpod":
        return str(step["body"]["env"]["SPILLWAY_YAML"])  # type: ignore[index]
    if target == "kubernetes":
        return str(yaml.safe_load(str(step["stdin"]))["config"])
    words = " ".join(step["argv"]).split()  # type: ignore[arg-type]
    mark = "SPILLWAY_YAML_BASE64=" if target == "vast" else "SpillwayYaml="
    (encoded,) = [word.removeprefix(mark) for word in words if word.startswith(mark)]
    return base64.b64decode(encoded).decode()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_that_is_not_pinned_is_told(tmp_path: Path, target: str) -> None:
    loose = dry_run(tmp_path, target, "--image", "r.example/spillway-gpu:0.1.0").out
    assert "The image is not pinned: r.example/spillway-gpu:0.1.0 may mean other bytes" in loose
    assert "docker buildx imagetools inspect r.example/spillway-gpu:0.1.0 --format '{{.Manifest.Digest}}'" in loose
    assert "VLLM_DIGEST" in loose
    pinned = f"r.example:5000/spillway-gpu:0.1.0@sha256:{64 * '0'}"
    done = dry_run(tmp_path, target, "--image", pinned)
    assert done.status == 0, done.err
    assert "not pinned" not in done.out
    assert f"sha256:{64 * '0'}" in done.out
    if target == "kubernetes":
        (step,) = json.loads(dry_run(tmp_path, target, "--image", pinned, "--json").out)["steps"]
        image = yaml.safe_load(step["stdin"])["image"]
        assert image == {"repository": "r.example:5000/spillway-gpu", "tag": "0.1.0", "digest": f"sha256:{64 * '0'}"}


def test_shell_access_on_vast_starts_the_supervisor_by_onstart(tmp_path: Path) -> None:
    (create,) = json.loads(dry_run(tmp_path, "vast", "--set", "ssh=1", "--json").out)["steps"][1:]
    words = create["argv"]
    assert "--args" not in words
    assert words[words.index("--onstart-cmd") + 1] == "/opt/spillway/bin/spillway-onstart"
    assert words[words.index("--bid_price") + 1] == "0.80"


CLOUD = ("--cloud", "groq=openai/gpt-oss-20b", "--secret", "GROQ_API_KEY", "--budget", "5")
WRONG = [
    (("runpod", "--gpu", "t4", "--price", "1"), "runpod has no t4"),
    (("runpod", "--gpu", "a100-80"), "say what one GPU costs"),
    (("runpod", "--gpu", "a100-80", "--price", "-1"), "say what one GPU costs"),
    (("runpod", "--gpu", "a100-80", "--price", "one"), "not an amount"),
    (("runpod", "--price", "1"), "say which GPU"),
    (("runpod", "--gpu", "b300", "--price", "1"), "use one of t4"),
    (("runpod", "--gpu", "a100-80", "--price", "1", "--interruptible"), "no interruptible pods"),
    (("aws", "--gpu", "t4", "--gpus", "3", "--price", "1"), "choose one of these"),
    (("aws", "--gpu", "t4", "--price", "1", "--set", "vpc=vpc-1"), "together"),
    (("aws", "--gpu", "t4", "--price", "1", "--set", "vpc"), "NAME=VALUE"),
    (("vast", "--gpu", "t4", "--price", "1", "--model", "Qwen/Qwen2.5-7B-Instruct"), "does not fit"),
    (("vast", "--gpu", "t4", "--price", "1", "--model", "."), "path on this machine"),
    (("kubernetes", "--gpu", "l4", "--price", "1", "--interruptible"), "spot nodes"),
    (("moon", "--gpu", "l4", "--price", "1"), "not a target"),
    (("runpod", "pod1", "--gpu", "l4", "--price", "1"), "only used with --destroy"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_what_cannot_be_rented_is_refused_with_the_reason(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = spillway(tmp_path, "deploy", *words, "--dry-run")
    assert done.status == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_nothing_is_rented_without_image_key_or_consent(tmp_path: Path) -> None:
    order = ("deploy", "runpod", "--gpu", "l4", "--price", "0.5", "--model", MODEL)
    assert "name the image" in spillway(tmp_path, *order).err
    assert "export RUNPOD_API_KEY" in spillway(tmp_path, *order, "--image", "r/i:1").err
    asked = spillway(tmp_path, *order, "--image", "r/i:1", env={"RUNPOD_API_KEY": "x"})
    assert asked.status == 1
    assert "--yes" in asked.err
    assert not (tmp_path / "data" / "deployments.json").exists()


def test_destroy_is_dry_too(tmp_path: Path) -> None:
    for target, handle, word in (
        ("runpod", "pod1", "terminate"),
        ("runpod", "serverless/ep1", "/v2/serverless/ep1"),
        ("vast", "123", "vastai destroy instance 123"),
        ("aws", "spillway", "delete-stack"),
        ("kubernetes", "spillway/spillway", "helm uninstall spillway --namespace spillway"),
    ):
        done = spillway(tmp_path, "deploy", target, handle, "--destroy", "--unrecorded", "--dry-run")
        assert done.status == 0, done.err
        assert word in done.out
        assert "nothing was done" in done.out
    nothing = spillway(tmp_path, "deploy", "aws", "--destroy")
    assert "nothing was deployed on aws" in nothing.err
