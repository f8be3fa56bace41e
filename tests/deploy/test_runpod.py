"""RunPod from the command line against a server built from its schema: rent, stop, start, log, give back, the books."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evidence.deploy_commands import MODEL, ROOT
from evidence.runpod_schema import Schema
from tests.deploy.in_process import spillway
from tests.deploy.runpod_server import KEY, Account, runpod_server

from spillway_router.deploy.order import DeployError
from spillway_router.deploy.runpod_api import RunPodClient

ORDER = ("runpod", "--gpu", "a100-80", "--price", "1.39", "--model", MODEL, "--image", "r/i:1", "--yes", "--wait", "0")


@pytest.fixture
def account() -> Iterator[Account]:
    with runpod_server() as records:
        yield records


def env(account: Account, key: str = KEY) -> dict[str, str]:
    return {"RUNPOD_API_KEY": key, "RUNPOD_API_URL": account.url, "GROQ_API_KEY": "gsk_secret"}


def rentals(folder: Path) -> list[dict[str, object]]:
    result = spillway(folder, "rentals", "list", "--json")
    if "there is no ledger" in result.err:
        return []
    records: list[dict[str, object]] = json.loads(result.out)
    return records


def test_a_pods_life_and_its_rentals(tmp_path: Path, account: Account) -> None:
    more = ("--volume", "vol1", "--secret", "GROQ_API_KEY", "--place", "EU-RO-1")
    deployed = spillway(tmp_path, "deploy", *ORDER, *more, env=env(account))
    assert deployed.status == 0, deployed.err
    (pod_id,) = account.pods
    sent = account.asked[0][2]
    assert sent["env"]["GROQ_API_KEY"] == "{{ RUNPOD_SECRET_GROQ_API_KEY }}"
    assert sent["mounts"] == {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    token = deployed.out.split("key   ")[1].split()[0]
    key_id, secret = token.removeprefix("sk-spill-").split("-")
    assert sent["env"]["SPILLWAY_ACCEPT_KEY"].startswith(f"{key_id}:")
    assert secret not in json.dumps(account.asked)
    assert "gsk_secret" not in json.dumps(account.asked) + deployed.out + deployed.err
    assert KEY not in deployed.out + deployed.err + (tmp_path / "data" / "deployments.json").read_text()
    (first,) = rentals(tmp_path)
    assert (first["source"], first["gpu"], first["stopped"]) == ("runpod", "a100-80", None)
    assert float(str(first["price_per_hour_usd"])) == 1.39

    assert "RUNNING" in spillway(tmp_path, "pod", "status", env=env(account)).out
    stopped = spillway(tmp_path, "pod", "stop", env=env(account))
    assert stopped.status == 0, stopped.err
    assert account.pods[pod_id]["status"] == "EXITED"
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False]
    again = spillway(tmp_path, "pod", "stop", env=env(account))
    assert again.status == 1
    assert "409" in again.err
    assert spillway(tmp_path, "pod", "start", env=env(account)).status == 0
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, True]
    log = spillway(tmp_path, "pod", "logs", "--tail", "3", env=env(account))
    assert [line.split("  ")[1] for line in log.out.splitlines()] == ["line 0", "line 1", "line 2"]
    assert pod_id in spillway(tmp_path, "pod", "list", env=env(account)).out

    ended = spillway(tmp_path, "deploy", "runpod", "--destroy", "--yes", env=env(account))
    assert ended.status == 0, ended.err
    assert account.pods == {}
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, False]
    assert json.loads((tmp_path / "data" / "deployments.json").read_text()) == []


def test_a_pod_is_booked_at_what_it_costs_and_ends_when_it_exits(tmp_path: Path, account: Account) -> None:
    account.cost = 1.89
    deployed = spillway(tmp_path, "deploy", *ORDER, env=env(account))
    assert "bills 1.890000 USD per hour and not the 1.39 that was typed" in deployed.err
    (rental,) = rentals(tmp_path)
    (pod_id,) = account.pods
    assert (rental["price_per_hour_usd"], rental["machine"]) == ("1.890000", pod_id)
    account.pods[pod_id] |= {"cost": 2.5}
    assert "another price" in spillway(tmp_path, "rentals", "watch", env=env(account)).out
    assert [r["price_per_hour_usd"] for r in rentals(tmp_path)] == ["1.890000", "2.500000"]
    account.pods[pod_id] |= {"status": "EXITED", "actions": ["start", "terminate"], "cost": 0.0}
    watched = spillway(tmp_path, "rentals", "watch", "--json", env=env(account))
    assert [change["act"] for change in json.loads(watched.out)["changes"]] == ["ended"]
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, False]
    account.pods[pod_id] |= {"status": "RUNNING", "actions": ["stop", "terminate"], "cost": 2.5}
    assert "began" in spillway(tmp_path, "pod", "status", env=env(account)).out
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [False, False, True]


def test_a_pod_that_was_terminated_elsewhere_can_be_forgotten(tmp_path: Path, account: Account) -> None:
    assert spillway(tmp_path, "deploy", *ORDER, env=env(account)).status == 0
    account.pods.clear()
    ended = spillway(tmp_path, "deploy", "runpod", "--destroy", "--yes", env=env(account))
    assert ended.status == 0, ended.err
    assert "gone already" in ended.out
    (rental,) = rentals(tmp_path)
    assert rental["stopped"] == rental["seen"]
    assert json.loads((tmp_path / "data" / "deployments.json").read_text()) == []


def test_a_provider_that_does_not_answer_ends_nothing(tmp_path: Path, account: Account) -> None:
    assert spillway(tmp_path, "deploy", *ORDER, env=env(account)).status == 0
    watched = spillway(tmp_path, "rentals", "watch", env=env(account, "wrong"))
    assert watched.status == 1
    assert "check RUNPOD_API_KEY" in watched.out
    assert [r["stopped"] is None for r in rentals(tmp_path)] == [True]


def test_serverless(tmp_path: Path, account: Account) -> None:
    deployed = spillway(tmp_path, "deploy", *ORDER, "--set", "serverless=1", env=env(account))
    assert deployed.status == 0, deployed.err
    sent = account.asked[0][2]
    assert (sent["env"]["PORT"], sent["env"]["PORT_HEALTH"], sent["gpu"]) == (
        "8080",
        "8080",
        {"pools": ["AMPERE_80"], "count": 1, "minCudaVersion": "13.0"},
    )
    assert (sent["type"], sent["scaling"]) == ("LOAD_BALANCER", {"type": "REQUEST_COUNT", "requestCount": 32})
    assert sent["workers"] == {"min": 0, "max": 2, "idleTimeout": 300}
    assert sent["env"]["HEALTH_CHECK_PATH"] == "/ping"
    assert rentals(tmp_path) == []  # billed by the second of use, not rented
    assert spillway(tmp_path, "deploy", "runpod", "--destroy", "--yes", env=env(account)).status == 0
    assert account.endpoints == {}


@pytest.mark.parametrize(
    ("broken", "key", "said"),
    [
        ("full", KEY, "no instances available"),
        ("schema", KEY, "no pod in the answer"),
        ("", "wrong", "check RUNPOD_API_KEY"),
    ],
)
def test_failures_are_told_and_nothing_is_booked(
    tmp_path: Path, account: Account, broken: str, key: str, said: str
) -> None:
    account.broken = broken
    deployed = spillway(tmp_path, "deploy", *ORDER, env=env(account, key))
    assert deployed.status == 1
    assert said in deployed.err
    assert key not in deployed.err
    assert rentals(tmp_path) == []


def test_no_server_is_told(tmp_path: Path) -> None:
    with runpod_server() as gone:
        pass
    assert "RunPod is unreachable" in spillway(tmp_path, "deploy", *ORDER, env=env(gone)).err


def test_unknown_fields_are_refused_by_the_schema(account: Account) -> None:
    client = RunPodClient(KEY, account.url)
    with pytest.raises(DeployError, match=r"422.*the API rejected a field"):
        client.call("POST", "/v2/pods", {"name": "x", "image": "y", "gpuTypeIds": ["v1"]})
    assert client.create_volume("models", 100, "EU-RO-1").size == 100
    with pytest.raises(DeployError, match="422"):
        client.create_volume("models", 5, "EU-RO-1")
    with pytest.raises(DeployError, match="404"):
        client.pod("nobody")
    client.close()


def test_templates_keep_to_the_schema() -> None:
    schema = Schema()
    for name, of in (("template.json", "CreateTemplateRequest"), ("serverless.json", "CreateEndpointRequest")):
        body = json.loads((ROOT / "runpod" / name).read_text(encoding="utf-8"))
        assert schema.errors(of, body) == []
        assert schema.errors(of, {**body, "bogus": 1}) != []
