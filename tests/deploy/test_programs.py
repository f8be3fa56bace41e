"""Vast.ai, AWS and Kubernetes through their programs: stand-ins on the PATH that write down what they were given."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from evidence.deploy_commands import MODEL, TARGETS, CommandResult
from tests.deploy.in_process import spillway
from tests.deploy.stand_ins import asked, program


def deploy(
    folder: Path, target: str, *more: str, order: bool = True, more_env: dict[str, str] | None = None
) -> CommandResult:
    """The usual order for real, against the stand-ins."""
    words = (
        ("--model", MODEL, "--image", "reg.example/spillway-gpu:0.1.0", "--wait", "0", *TARGETS[target])
        if order
        else ()
    )
    path, nowhere = f"{folder / 'bin'}:{os.environ['PATH']}", str(folder / "none")
    env = {"PATH": path, "VAST_API_KEY": "vast-secret", "KUBECONFIG": nowhere, **(more_env or {})}
    return spillway(folder, "deploy", target, *words, "--yes", *more, env=env)


def rentals(folder: Path) -> list[dict[str, object]]:
    result = spillway(folder, "rentals", "list", "--json")
    if "there is no ledger" in result.err:
        return []
    listed: list[dict[str, object]] = json.loads(result.out)
    return listed


def test_vast_takes_the_cheapest_offer(tmp_path: Path) -> None:
    program(
        tmp_path, "vastai", {"search offers": [{"id": 77, "dph_total": 0.71}], "create instance": {"new_contract": 4}}
    )
    deployed = deploy(tmp_path, "vast")
    assert deployed.status == 0, deployed.err
    (search, _, key), (create, _, _), (show, _, _) = asked(tmp_path)
    assert key == "vast-secret"
    assert "dph_total<=0.80" in search[2]
    assert search[search.index("--type") + 1] == "bid"
    assert create[:3] == ["create", "instance", "77"]
    assert create[create.index("--bid_price") + 1] == "0.80"
    assert create[-3:] == ["--args", "spillway", "up"]
    assert search[-2:] == ["--storage", "80"], "the price of an offer includes the disk that is ordered"
    assert show == ["show", "instances", "--raw"]
    assert "vast-secret" not in json.dumps([search, create]) + deployed.out
    assert [(r["source"], r["kind"], r["stopped"]) for r in rentals(tmp_path)] == [("vast", "interruptible", None)]
    assert deploy(tmp_path, "vast", "--destroy", order=False).status == 0
    assert asked(tmp_path)[-1][0] == ["destroy", "instance", "4", "--yes"]
    assert rentals(tmp_path)[0]["stopped"] is not None


def test_vast_without_an_offer_rents_nothing(tmp_path: Path) -> None:
    program(tmp_path, "vastai", {"search offers": []})
    deployed = deploy(tmp_path, "vast")
    assert deployed.status == 1
    assert "pay more" in deployed.err
    assert len(asked(tmp_path)) == 1
    assert rentals(tmp_path) == []


def test_helm_gets_its_values_by_standard_input(tmp_path: Path) -> None:
    program(tmp_path, "helm", {})
    deployed = deploy(tmp_path, "kubernetes", "--place", "llm")
    assert deployed.status == 0, deployed.err
    ((words, values, _),) = asked(tmp_path)
    assert words[:3] == ["upgrade", "--install", "spillway"]
    assert Path(words[3], "Chart.yaml").is_file()
    given = yaml.safe_load(values)
    assert given["image"] == {"repository": "reg.example/spillway-gpu", "tag": "0.1.0"}
    assert given["providerKeys"] == {"existingSecret": "spillway-provider-keys"}
    assert yaml.safe_load(given["config"])["gpu"]["name"] == "l4"
    chart = yaml.safe_load(Path(words[3], "values.yaml").read_text())
    assert set(given) <= set(chart), "values that the chart doesn't have"
    assert deploy(tmp_path, "kubernetes", "--destroy", order=False).status == 0
    assert asked(tmp_path)[-1][0] == ["uninstall", "spillway", "--namespace", "llm", "--wait"]


def test_aws_deploys_the_stack(tmp_path: Path) -> None:
    program(tmp_path, "aws", {"cloudformation describe-stacks": {"Stacks": [{"StackName": "spillway"}]}})
    deployed = deploy(tmp_path, "aws", "--place", "eu-central-1")
    assert deployed.status == 0, deployed.err
    words = asked(tmp_path)[0][0]
    given = dict(word.split("=", 1) for word in words[words.index("--parameter-overrides") + 1 :])
    template = _parameters(Path(words[words.index("--template-file") + 1]))
    assert set(given) <= set(template)
    assert {name for name, part in template.items() if "Default" not in part} <= set(given)
    assert given["InstanceType"] == "g4dn.xlarge"
    assert deploy(tmp_path, "aws", "--destroy", order=False).status == 0
    assert [row[0][1] for row in asked(tmp_path)[-2:]] == ["delete-stack", "wait"]
    assert asked(tmp_path)[-1][0][-2:] == ["--region", "eu-central-1"]


def _parameters(template: Path) -> dict[str, dict[str, object]]:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short functions as None."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    parameters: dict[str, dict[str, object]] = yaml.load(template.read_text(), Loader=Loader)["Parameters"]
    return parameters


@pytest.mark.parametrize(("target", "name"), [("vast", "vastai"), ("aws", "aws"), ("kubernetes", "helm")])
def test_a_program_that_fails_or_lacks_is_told(tmp_path: Path, target: str, name: str) -> None:
    words = ("--model", MODEL, "--image", "r/i:1", *TARGETS[target], "--yes")
    lacking = spillway(tmp_path, "deploy", target, *words, env={"PATH": "/nonexistent", "VAST_API_KEY": "x"})
    assert f"the program {name} is not installed" in lacking.err
    program(tmp_path, name, {}, status=3)
    failed = deploy(tmp_path, target)
    assert failed.status == 1
    assert "exited with status 3" in failed.err
    assert rentals(tmp_path) == []


def test_vast_is_booked_at_what_it_answers(tmp_path: Path) -> None:
    answers: dict[str, object] = {
        "search offers": [{"id": 77, "dph_total": 0.64}],
        "create instance": {"new_contract": 4},
        "show instances": [{"id": 4, "cur_state": "running", "intended_status": "running", "dph_total": 0.6400001}],
    }
    program(tmp_path, "vastai", answers)
    deployed = deploy(tmp_path, "vast")
    assert "vast bills 0.6400001 USD per hour" in deployed.err
    (rental,) = rentals(tmp_path)
    assert (rental["price_per_hour_usd"], rental["machine"]) == ("0.6400001", "4")
    stopped = {"id": 4, "cur_state": "stopped", "intended_status": "stopped", "actual_status": "exited"}
    program(tmp_path, "vastai", {**answers, "show instances": [stopped]})
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VAST_API_KEY": "vast-secret"}
    watched = spillway(tmp_path, "rentals", "watch", env=env)
    assert "ended" in watched.out, watched.err
    (rental,) = rentals(tmp_path)
    assert rental["stopped"] == rental["seen"]


@pytest.mark.parametrize(("target", "name"), [("aws", "aws"), ("kubernetes", "helm")])
def test_the_same_machine_deployed_again_is_the_same_rental(tmp_path: Path, target: str, name: str) -> None:
    program(tmp_path, name, {"cloudformation describe-stacks": {"Stacks": [{"StackName": "spillway"}]}})
    assert deploy(tmp_path, target).status == 0
    again = deploy(tmp_path, target)
    assert again.status == 0, again.err
    assert "goes on" in again.out
    assert [r["stopped"] for r in rentals(tmp_path)] == [None]
    dearer = deploy(tmp_path, target, "--price", "0.99")
    assert dearer.status == 0, dearer.err
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, True]
    assert deploy(tmp_path, target, "--destroy", order=False).status == 0
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, False]


STACK: dict[str, object] = {"cloudformation describe-stacks": {"Stacks": [{"StackName": "spillway"}]}}


def test_stacks_of_one_name_in_two_regions_are_two_machines(tmp_path: Path) -> None:
    program(tmp_path, "aws", STACK)
    for region in ("eu-central-1", "us-east-1"):
        assert deploy(tmp_path, "aws", "--place", region).status == 0
    assert {row["machine"] for row in rentals(tmp_path)} == {"eu-central-1/spillway", "us-east-1/spillway"}
    assert [row["stopped"] for row in rentals(tmp_path)] == [None, None]
    for unclear in ((), ("spillway",)):
        done = deploy(tmp_path, "aws", *unclear, "--destroy", order=False)
        assert done.status == 1
        assert "spillway (eu-central-1), spillway (us-east-1); name one, with its --place" in done.err
    foreign = deploy(tmp_path, "aws", "spillway", "--destroy", "--place", "eu-west-1", order=False)
    assert "was not deployed from here in eu-west-1" in foreign.err
    assert deploy(tmp_path, "aws", "spillway", "--destroy", "--place", "us-east-1", order=False).status == 0
    assert asked(tmp_path)[-1][0][-2:] == ["--region", "us-east-1"]
    assert {row["machine"]: row["stopped"] is None for row in rentals(tmp_path)} == {
        "eu-central-1/spillway": True,
        "us-east-1/spillway": False,
    }
    assert deploy(tmp_path, "aws", "--destroy", order=False).status == 0, "the one that is left"
    assert asked(tmp_path)[-1][0][-2:] == ["--region", "eu-central-1"]


def test_a_stack_is_released_in_the_region_in_which_the_environment_made_it(tmp_path: Path) -> None:
    program(tmp_path, "aws", STACK)
    assert deploy(tmp_path, "aws", more_env={"AWS_REGION": "eu-west-3"}).status == 0
    moved = {"AWS_REGION": "us-east-1"}
    assert deploy(tmp_path, "aws", "--destroy", order=False, more_env=moved).status == 0
    assert asked(tmp_path)[-1][0][-2:] == ["--region", "eu-west-3"]


def test_a_release_is_taken_away_from_the_cluster_that_it_was_made_in(tmp_path: Path) -> None:
    program(tmp_path, "helm", {})
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text("#!/bin/sh\necho minikube\n")
    kubectl.chmod(0o755)
    assert deploy(tmp_path, "kubernetes").status == 0
    kubectl.write_text("#!/bin/sh\necho production\n")
    assert deploy(tmp_path, "kubernetes", "--destroy", order=False).status == 0
    assert asked(tmp_path)[-1][0][-2:] == ["--kube-context", "minikube"]


def test_releases_of_one_name_in_two_clusters_are_two_machines(tmp_path: Path) -> None:
    program(tmp_path, "helm", {})
    for context in ("arn:aws:eks:eu-central-1:1:cluster/a", "b"):
        assert deploy(tmp_path, "kubernetes", "--set", f"context={context}").status == 0
    assert [row["stopped"] for row in rentals(tmp_path)] == [None, None]
    assert "several were deployed" in deploy(tmp_path, "kubernetes", "--destroy", order=False).err
    assert deploy(tmp_path, "kubernetes", "--destroy", "--set", "context=b", order=False).status == 0
    assert asked(tmp_path)[-1][0][-2:] == ["--kube-context", "b"]
    assert [row["machine"] for row in rentals(tmp_path) if row["stopped"] is None] == [
        "arn:aws:eks:eu-central-1:1:cluster/a:spillway/spillway"
    ]


def test_the_books_follow_a_spot_instance_its_price_and_its_end(tmp_path: Path) -> None:
    launched = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    instance = {
        "InstanceLifecycle": "spot",
        "InstanceType": "g4dn.xlarge",
        "LaunchTime": launched.isoformat(),
        "Placement": {"AvailabilityZone": "eu-central-1a"},
        "State": {"Name": "running"},
    }
    price = {"SpotPrice": "0.2110000", "Timestamp": (launched - timedelta(hours=2)).isoformat()}
    answers: dict[str, object] = {
        "cloudformation describe-stacks": {"Stacks": [{"StackName": "spillway"}]},
        "ec2 describe-instances": {"Reservations": [{"Instances": [instance]}]},
        "ec2 describe-spot-price-history": {"SpotPriceHistory": [price]},
    }
    program(tmp_path, "aws", answers)
    deployed = deploy(tmp_path, "aws", "--interruptible", "--place", "eu-central-1")
    assert deployed.status == 0, deployed.err
    (rental,) = rentals(tmp_path)
    assert (rental["price_per_hour_usd"], rental["machine"]) == ("0.211000", "eu-central-1/spillway")
    ended = datetime.now(UTC).replace(microsecond=0)
    instance |= {"State": {"Name": "terminated"}, "StateTransitionReason": f"Server.SpotInstance ({ended:%F %T} GMT)"}
    program(tmp_path, "aws", answers)
    watched = spillway(tmp_path, "rentals", "watch", env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert watched.status == 0, watched.out
    (rental,) = rentals(tmp_path)
    assert rental["stopped"] is not None
    assert asked(tmp_path)[-1][0][-1] == "Name=tag:aws:cloudformation:stack-name,Values=spillway"
