"""`spillway check` contacts the backends: real servers that answer, refuse, hang or don't exist."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.config import load, reachability
from spillway_router.config.assemble import Assembly, BackendTarget, assembly_of
from spillway_router.config.reachability import ask_all
from spillway_router.testing.threaded_server import threaded_server


class Answers(BaseHTTPRequestHandler):
    """Answers by the first part of the path: a status, or `hang`. `/ok` requires the key `good`."""

    seen: list[tuple[str, str]]
    gate: threading.Event

    def do_GET(self) -> None:
        key = self.headers.get("authorization", "")
        self.seen.append((self.path, key))
        part = self.path.split("/")[1]
        if part == "hang":
            self.gate.wait(30)
            return
        status = int(part) if part.isdecimal() else 200 if key in ("", "Bearer good") else 401
        body = json.dumps({"data": [{"id": "m"}, {"id": "n"}]}).encode()
        self.send_response(status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def server() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    gate, seen = threading.Event(), []  # type: ignore[var-annotated]
    handler = type("Handler", (Answers,), {"seen": seen, "gate": gate})
    with threaded_server(handler) as url:
        try:
            yield url, seen
        finally:
            gate.set()


@pytest.fixture
def closed() -> Iterator[str]:
    """Return an address on which nothing listens and which nothing else can bind."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield "http://127.0.0.1:{1}".format(*place.getsockname())


def cloud(name: str, url: str, key: str = "good") -> str:
    price = '{input_per_million: "1", output_per_million: "1"}'
    return f"  - {{name: {name}, provider: generic, model: m, api_key: {key}, base_url: '{url}/v1', price: {price}}}\n"


def check(folder: Path, backends: str, *more: str) -> tuple[int, dict[str, Any], str]:
    file = folder / "spillway.yaml"
    file.write_text(f"ledger: {{url: 'sqlite:///{folder}/x.db'}}\nbackends:\n{backends}")
    as_json = CliRunner().invoke(app, ["check", "-c", str(file), "--json", *more])
    as_text = CliRunner().invoke(app, ["check", "-c", str(file), *more])
    assert as_json.exit_code == as_text.exit_code
    return as_json.exit_code, json.loads(as_json.stdout), as_text.output


def test_every_state_of_a_backend_is_reported(tmp_path: Path, closed: str) -> None:
    with server() as (url, seen):
        backends = (
            cloud("fine", url + "/ok")
            + cloud("busy", url + "/429")
            + cloud("gone", closed)
            + cloud("ill", url + "/503")
            + cloud("lost", url + "/404")
            + cloud("moved", url + "/301")
            + f"  - {{name: local, provider: vllm, model: demo, base_url: '{url}/ok/v1'}}\n"
        )
        code, report, text = check(tmp_path, backends)
    assert (code, report["ok"], report["mistakes"]) == (0, True, [])
    verdicts = {one["backend"]: one["verdict"] for one in report["backends"]}
    assert verdicts == {
        "fine": "reachable",
        "busy": "reachable",
        "gone": "refused",
        "ill": "unknown",
        "lost": "unknown",
        "moved": "unknown",
        "local": "reachable",
    }
    warned = {(w["where"], w["line"]): w["problem"] for w in report["warnings"]}
    assert "start it or check base_url" in warned["backends.gone", 5]
    assert "it may be starting" in warned["backends.ill", 6]
    assert "check the path of base_url" in warned["backends.lost", 7]
    assert "write the final address" in warned["backends.moved", 8]
    assert "it serves m, n" in warned["backends.local", 9]
    assert "it has no model 'demo': set model to one it serves" in warned["backends.local", 9]
    assert ("/ok/v1/models", "Bearer good") in seen
    assert not any(path == "/elsewhere" for path, _ in seen)
    assert "ready        fine: cloud, generic, m, reachable in " in text
    assert "unreachable  gone: cloud, generic, m, refused in " in text


def test_a_rejected_key_is_an_error_with_its_fix(tmp_path: Path) -> None:
    with server() as (url, _):
        code, report, text = check(tmp_path, cloud("wrong", url + "/ok", "sk-bad") + cloud("barred", url + "/403"))
    assert (code, report["ok"]) == (1, False)
    problems = {m["where"]: (m["line"], m["problem"]) for m in report["mistakes"]}
    assert problems["backends.wrong"][0] == 3
    assert "unauthorized (HTTP 401)" in problems["backends.wrong"][1]
    assert "set api_key" in problems["backends.wrong"][1]
    assert "unauthorized (HTTP 403)" in problems["backends.barred"][1]
    assert "sk-bad" not in text + json.dumps(report)
    assert "2 errors" in text


def test_offline_contacts_no_backend(tmp_path: Path) -> None:
    with server() as (url, seen):
        code, report, text = check(tmp_path, cloud("wrong", url + "/ok", "sk-bad"), "--offline")
    assert (code, report["backends"], seen) == (0, [], [])
    assert "ready        wrong: cloud, generic, m\n" in text


def test_pacing_without_a_tier_to_escalate_to_is_a_warning(tmp_path: Path) -> None:
    paced = "budgets:\n  - {scope: all, period: day, limit_usd: '1', pacing: true}\n"
    local = "  - {name: local, provider: vllm, model: demo}\n"
    priced = "gpu: {price_per_hour: '1'}\n"
    code, report, _ = check(tmp_path, local + paced + priced, "--offline")
    assert (code, [(w["where"], w["line"]) for w in report["warnings"]]) == (0, [("budgets.0.pacing", 5)])
    assert "confidence.escalate_to" in report["warnings"][0]["problem"]


def place(url: str) -> BackendTarget:
    assembly: Assembly = assembly_of(
        load.Loaded(load.parse(f"backends:\n{cloud('c', url)}", {}), None, "", {}),
        datetime.now(UTC).date(),
    )
    return assembly.targets["c"]


def test_waiting_is_bounded_and_concurrent() -> None:
    with server() as (url, _):
        reached = ask_all([place(url + "/hang")] * 8, timeout_s=0.3)
    assert {(one.verdict, one.detail) for one in reached} == {("unknown", "no answer within 0.3 s")}
    assert sum(one.ms for one in reached) > 8 * 250
    assert max(one.ms for one in reached) < 5 * 300  # in sequence, the last one would have waited for all others


async def test_a_server_that_speaks_no_http_is_reported() -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        reach = await reachability._ask(place(f"http://127.0.0.1:{port}"), 5.0)
    assert (reach.verdict, reach.fix) == ("unknown", "check base_url")


def test_an_unknown_price_of_the_gpu_is_a_warning(tmp_path: Path) -> None:
    local = "  - {name: local, provider: vllm, model: demo}\n"
    code, report, _ = check(tmp_path, local, "--offline")
    assert code == 0
    assert [w["where"] for w in report["warnings"] if "price of the GPU is unknown" in w["problem"]] == ["gpu"]


def test_offline_asks_no_database_server(tmp_path: Path) -> None:
    """Nobody listens at this address; what else is wrong must be told all the same."""
    file = tmp_path / "spillway.yaml"
    backend = "{name: local, provider: vllm, model: m}"
    file.write_text(f"backends: [{backend}]\nledger: {{url: 'postgresql://nobody@127.0.0.1:9/spillway'}}\n")
    assert CliRunner().invoke(app, ["check", "-c", str(file), "--offline"]).exit_code == 0
    asked = CliRunner().invoke(app, ["check", "-c", str(file)])
    assert asked.exit_code == 1
    assert "ledger.url" in asked.output
