"""A server built from runpod/schema.json: every body is checked against the schema on its way in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from evidence.runpod_schema import Schema

from spillway_router.testing.threaded_server import threaded_server

KEY = "rpa_test_key_of_nobody"
_ACTIONS = {"RUNNING": ["stop", "restart", "terminate"], "EXITED": ["start", "terminate"]}
_AFTER = {"start": "RUNNING", "restart": "RUNNING", "stop": "EXITED"}


@dataclass(slots=True)
class Account:
    """What the server holds, and what it was asked."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    cost: float = 1.39
    """USD per hour that the account pays for a pod."""
    broken: str = ""
    """`schema`: answers lack a field; `full`: no GPU is free."""
    url: str = ""


def _body_schema(operation: dict[str, Any]) -> str:
    return str(operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]).rsplit("/", 1)[-1]


def _placed(gpu: dict[str, Any]) -> dict[str, Any]:
    """The GPU of a pod as it is described, without what its host was asked for."""
    return {name: value for name, value in gpu.items() if name != "minCudaVersion"}


class _Handler(BaseHTTPRequestHandler):
    account: Account
    schema: Schema

    def log_message(self, *words: object) -> None:
        """Quiet."""

    def _answer(self, status: int, value: Any, name: str = "") -> None:
        if name and (errors := self.schema.errors(name, value)):
            raise AssertionError(f"this server's own answer breaks {name}: {errors}")
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _problem(self, status: int, detail: str, errors: list[str] | None = None) -> None:
        value = {"title": str(status), "status": status, "detail": detail, **({"errors": errors} if errors else {})}
        self._answer(status, value, "ErrorResponse")

    def _serve(self) -> None:
        place = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.account.asked.append((self.command, place.path, body))
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self._problem(401, "missing bearer token")
        match = self.schema.operation(self.command, place.path)
        if match is None:
            return self._problem(404, "no such path")
        operation, of = match
        if "requestBody" in operation and (errors := self.schema.errors(_body_schema(operation), body)):
            return self._problem(422, "Request validation failed.", errors)
        name = re.sub("([A-Z])", lambda capital: f"_{capital[1].lower()}", operation["operationId"])
        return getattr(self, f"_{name}")(of, body, parse_qs(place.query))

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the base class's names

    def _create_pod(self, of: str, body: dict[str, Any], query: Any) -> None:
        if self.account.broken == "full":
            return self._problem(400, "There are no instances available for this GPU")
        pod_id = f"pod{len(self.account.pods)}x7h9k"
        pod = {
            **{"args": "", "registry": None, "mounts": {}, "dataCenterId": None, "template": None, "locked": False},
            **{k: v for k, v in body.items() if k not in ("dataCenterIds", "globalNetworking")},
            **{
                "id": pod_id,
                "status": "RUNNING",
                "actions": _ACTIONS["RUNNING"],
                "cost": self.account.cost,
                "runtime": None,
            },
            **{"createdAt": "2026-11-21T01:00:00Z", "startedAt": None, "globalNetworking": {"enabled": False}},
        }
        pod |= {"gpu": _placed(body["gpu"]), "cudaVersion": "13.0", "ssh": {"proxy": None, "direct": None}}
        self.account.pods[pod_id] = pod
        if self.account.broken == "schema":
            return self._answer(201, {k: v for k, v in pod.items() if k != "id"})
        return self._answer(201, pod, "Pod")

    def _list_pods(self, of: str, body: Any, query: Any) -> None:
        self._answer(200, {"pods": list(self.account.pods.values())}, "ListPodsResponse")

    def _get_pod(self, of: str, body: Any, query: Any) -> None:
        pod = self.account.pods.get(of)
        return self._problem(404, "pod not found") if pod is None else self._answer(200, pod, "Pod")

    def _pod_action(self, of: str, body: dict[str, Any], query: Any) -> None:
        pod, action = self.account.pods.get(of), body["action"]
        if pod is None:
            return self._problem(404, "pod not found")
        if action not in pod["actions"]:
            return self._problem(409, f"{action} is not valid for {pod['status']}")
        if action == "terminate":
            del self.account.pods[of]
            return self._answer(204, None)
        pod["status"] = _AFTER[action]
        pod["actions"], pod["cost"] = _ACTIONS[pod["status"]], self.account.cost if pod["status"] == "RUNNING" else 0.0
        return self._answer(200, pod, "Pod")

    def _get_pod_logs(self, of: str, body: Any, query: dict[str, list[str]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for number in range(int(query["tail"][0])):
            row = {"ts": f"2026-11-21T01:00:0{number}Z", "source": query["source"][0], "line": f"line {number}"}
            self.wfile.write(f"id: {row['ts']}\ndata: {json.dumps(row)}\n\n".encode())

    def _create_network_volume(self, of: str, body: dict[str, Any], query: Any) -> None:
        self._answer(201, {"type": "STANDARD", **body, "id": "agv6w2qcg7"}, "NetworkVolume")

    def _create_endpoint(self, of: str, body: dict[str, Any], query: Any) -> None:
        more = {"id": "4m7x2k9q", "timeout": 300000, "flashboot": "OFF", "createdAt": "2026-11-21T01:00:00Z"}
        endpoint = {"dataCenterIds": [], "networkVolumes": [], **body, **more}
        endpoint["gpu"] = {"allowedCudaVersions": [], "minCudaVersion": None, **body["gpu"]}
        self.account.endpoints["4m7x2k9q"] = endpoint
        self._answer(201, endpoint, "Endpoint")

    def _delete_endpoint(self, of: str, body: Any, query: Any) -> None:
        endpoint = self.account.endpoints.pop(of, None)
        return self._problem(404, "endpoint not found") if endpoint is None else self._answer(204, None)


@contextmanager
def runpod_server() -> Iterator[Account]:
    """The server on a free port of loopback; `account.url` is its base URL."""
    account = Account()
    handler = type("Handler", (_Handler,), {"account": account, "schema": Schema()})
    with threaded_server(handler) as account.url:
        yield account
