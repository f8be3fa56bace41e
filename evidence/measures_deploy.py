"""Dry runs of `spillway deploy`, as a user types them, each judged by what its target would do with the steps."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from evidence.deploy_commands import MODEL, TARGETS, CommandResult, dry_run
from evidence.results import Measurement
from evidence.runpod_schema import Schema
from spillway_router.config.load import ConfigError, parse
from spillway_router.deploy.files import deploy_file

DRY_RUNS = "deploy.dry_runs_green"
SECRETS = {
    "RUNPOD_API_KEY": "rpa_0123456789abcdef",
    "VAST_API_KEY": "vast-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "aws-0123456789abcdef",
    "GROQ_API_KEY": "gsk_0123456789abcdef",
}
"""Invented secrets; none of them may appear anywhere."""

DryRun = Callable[..., CommandResult]


def dry_runs(
    say: Callable[[str], None], run: DryRun = dry_run, targets: Mapping[str, tuple[str, ...]] = TARGETS
) -> dict[str, Measurement]:
    """Count the green targets.

    A target is green with exit status 0, the price first, no secret, nothing written, the same text in a second run,
    and steps that the target accepts: RunPod's schema, the stack's parameters, the chart's values, a complete Vast.ai
    order; the machine's configuration must be valid each time.
    """
    problems: dict[str, list[str]] = {}
    for target in targets:
        with tempfile.TemporaryDirectory() as folder:
            problems[target] = _problems(target, Path(folder), run)
        say(f"  {target}: {'; '.join(problems[target]) or 'green'}")
    green = sum(not faults for faults in problems.values())
    details = {
        "model": MODEL,
        "problems": problems,
        "note": "dry runs only: nothing was rented, no account and no GPU was used",
    }
    return {DRY_RUNS: Measurement(green, len(problems), details)}


def _problems(target: str, folder: Path, run: DryRun) -> list[str]:
    text = run(folder, target, env=SECRETS)
    if text.status != 0:
        return [f"ended with status {text.status}: {text.err.strip()[-200:]}"]
    problems = []
    price = TARGETS[target][TARGETS[target].index("--price") + 1]
    first = text.out.splitlines()[:2]
    if not first[0].startswith("price ") or f"${price} per hour" not in first[0]:
        problems.append("the price per hour isn't first")
    if f"${Decimal(price) * 730:,.2f} per month" not in first[1]:
        problems.append("the price per month isn't second")
    if any(secret in text.out + text.err for secret in SECRETS.values()):
        problems.append("a secret is shown")
    if any(folder.iterdir()):
        problems.append("something was written")
    if run(folder, target, env=SECRETS).out != text.out:
        problems.append("twice is not the same")
    plan = json.loads(run(folder, target, "--json", env=SECRETS).out)
    return [*problems, *_CHECKS[target](plan["steps"])]


def _runpod(steps: list[dict[str, Any]]) -> list[str]:
    (step,) = steps
    errors = Schema().errors("CreatePodRequest", step["body"])
    return [*errors, *_configuration(step["body"]["env"].get("SPILLWAY_YAML", ""))]


def _vast(steps: list[dict[str, Any]]) -> list[str]:
    search, create = (step["argv"] for step in steps)
    required = ("gpu_name", "num_gpus", "dph_total<=", "cuda_vers>=", "disk_space>=")
    problems = [f"the search names no {word}" for word in required if word not in search[3]]
    problems += [f"create has no {flag}" for flag in ("--image", "--disk", "--env", "--args") if flag not in create]
    encoded = re.search(r"SPILLWAY_YAML_BASE64=(\S+)", " ".join(create))
    return [*problems, *_configuration(base64.b64decode(encoded[1]).decode() if encoded else "")]


def _aws(steps: list[dict[str, Any]]) -> list[str]:
    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's short functions as None."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    template = yaml.load(deploy_file("aws/template.yaml").read_text(encoding="utf-8"), Loader=Loader)
    parameters = template["Parameters"]
    words = steps[0]["argv"]
    given = dict(word.split("=", 1) for word in words[words.index("--parameter-overrides") + 1 :])
    problems = [f"the stack has no parameter {name}" for name in given if name not in parameters]
    problems += [
        f"{name} is missing" for name, part in parameters.items() if "Default" not in part and name not in given
    ]
    for name, value in given.items():
        part = parameters.get(name, {})
        if not re.fullmatch(part.get("AllowedPattern", "(?s).*"), value):
            problems.append(f"{name} is not what the stack allows")
    return [*problems, *_configuration(base64.b64decode(given.get("SpillwayYaml", "")).decode())]


def _kubernetes(steps: list[dict[str, Any]]) -> list[str]:
    (step,) = steps
    given = yaml.safe_load(step["stdin"])
    chart = yaml.safe_load((deploy_file("kubernetes/spillway") / "values.yaml").read_text(encoding="utf-8"))
    problems = [f"the chart has no value {name}" for name in given if name not in chart]
    return [*problems, *_configuration(given.get("config", ""))]


def _configuration(text: str) -> list[str]:
    try:
        settings = parse(text, {"GROQ_API_KEY": "k"})
    except ConfigError as error:
        return [f"the machine's configuration: {error}"]
    return [] if settings.server and settings.server.model == MODEL else ["the machine would run another model"]


_CHECKS: Mapping[str, Callable[[list[dict[str, Any]]], list[str]]] = {
    "runpod": _runpod,
    "vast": _vast,
    "aws": _aws,
    "kubernetes": _kubernetes,
}
