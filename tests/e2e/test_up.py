"""`spillway up` as a user runs it: real vLLM on the CPU, two LoRA adapters, a router, a stand-in cloud; its start, its
end, its death."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from demo.product import CloudProcess, free_ports
from tests.e2e.lora import adapter

from spillway_router.testing.processes import (
    ROOT,
    SpillwayProcess,
    alive,
    await_ready,
    eventually,
    family,
    in_sessions,
    running,
    sessions,
    write,
)
from spillway_server.demo_model.documents import Document, exact, prompt

pytestmark = pytest.mark.engine

ENGINE_LIMIT_S = 280.0
ADAPTERS = {"quiet": 0.0, "loud": 0.5}
"""The strength of each LoRA: the quiet one answers like the model itself, the loud one doesn't."""
ENGINE_LAUNCHED = re.compile(r"^engine starting; its log: ")
ENGINE_LOADS = re.compile(r"^engine \d+ s: ")
NEXT_STEP = re.compile(r"^try: +spillway extract docs/examples/report\.txt$")
ENGINE_READY = re.compile(r"^engine ready after (\d+) s: demo at http://127\.0\.0\.1:\d+/v1$")


@pytest.fixture(autouse=True)
def _engine_installed() -> None:
    if not (ROOT / ".venv-vllm" / "bin" / "python").exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")


def up_config(folder: Path, standin: CloudProcess) -> Path:
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}/v1"
    groq = {"name": "groq", "provider": "groq", "base_url": standin.url, "api_key": "${STANDIN_API_KEY}"}
    loras = {name: str(adapter(folder / name, strength)) for name, strength in ADAPTERS.items()}
    settings = {
        "server": {"model": "demo", "loras": loras},
        "gpu": {"price_per_hour": "1.39"},
        "backends": [
            {"name": "local", "provider": "vllm", "base_url": base, "model": "demo"},
            *({"name": name, "provider": "vllm", "local": True, "base_url": base, "model": name} for name in loras),
            {**groq, "model": "openai/gpt-oss-20b"},
        ],
        "aliases": {"auto": {"chain": ["local", "groq"]}, **{name: {"chain": [name]} for name in loras}},
        # The promise is wide, so that only the state of the engine decides here, not how busy the machine is.
        "slo": {"ttft_ms": 60_000, "tpot_ms": 10_000},
    }
    return write(folder, settings)


def post(url: str, document: Document, model: str = "auto", **headers: str) -> httpx.Response:
    body = {"model": model, "messages": prompt(document.text), "temperature": 0, "max_tokens": 300}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120, trust_env=False)


def content(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def unsettled(ledger: Path) -> list[tuple[str, int]]:
    """Return the attempts with a hold that was neither charged nor released."""
    query = """select request_id, attempt_no from entries group by request_id, attempt_no
               having sum(kind = 'reserved') > 0 and sum(kind in ('charged', 'released')) = 0"""
    with closing(sqlite3.connect(ledger)) as database:
        assert database.execute("select count(*) from entries where kind = 'charged'").fetchone()[0] > 0
        return list(database.execute(query))


def events(lines: Iterator[str]) -> Iterator[Any]:
    for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


class NotYetError(Exception):
    """Raised while the processes have not started yet."""


def begun(spillway: SpillwayProcess, stage: re.Pattern[str]) -> list[psutil.Process]:
    """Wait until vLLM has reached a stage of its start, and return all processes of `up`."""
    spillway.says(stage, ENGINE_LIMIT_S)

    def guard_and_engine() -> list[psutil.Process]:
        processes = family(spillway.process.pid)
        if len(processes) < 2:
            raise NotYetError
        return processes

    return eventually(guard_and_engine, NotYetError)


def test_it_answers_at_once_overflows_while_warming_then_stays_local_serves_adapters_and_ends_in_order(
    standin: CloudProcess, documents: list[Document], tmp_path: Path, record_property: Any
) -> None:
    started = time.monotonic()
    with running("up", up_config(tmp_path, standin), {"STANDIN_API_KEY": standin.key}) as up:
        url = up.url
        record_property("router_listens_s", round(time.monotonic() - started, 1))

        early = post(url, documents[0])
        assert (early.status_code, early.headers["x-spillway-backend"]) == (200, "groq"), early.text
        assert early.headers["x-spillway-decision"] == "overflow"
        assert float(early.headers["x-spillway-cost-usd"]) > 0
        assert exact(content(early), documents[0].truth)
        private = post(url, documents[1], **{"x-spillway-privacy": "local-only"})
        assert private.status_code == 503
        assert private.json()["error"]["code"] == "local_only_unavailable"
        assert up.process.poll() is None

        engine_s = int(up.says(ENGINE_READY, ENGINE_LIMIT_S).group(1))
        up.says(NEXT_STEP)
        await_ready(url, "local")
        record_property("engine_ready_s", engine_s)
        record_property("up_ready_s", round(time.monotonic() - started, 1))
        late = post(url, documents[1], **{"x-spillway-privacy": "local-only"})
        assert (late.headers["x-spillway-backend"], late.headers["x-spillway-decision"]) == ("local", "local")
        assert float(late.headers["x-spillway-cost-usd"]) == 0
        assert exact(content(late), documents[1].truth)
        each_adapter_answers_under_its_alias(url, documents[1], content(late))

        processes = family(up.process.pid)
        theirs = sessions(processes)
        finished = in_flight_over_sigterm(up, url)
        assert finished == ("length", "[DONE]"), "the request in progress is served to its end"
        assert up.ended() == 0, up.text
        assert alive(processes, 1.0) == in_sessions(theirs) == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", timeout=10, trust_env=False)
    assert unsettled(tmp_path / "spillway.db") == []


def each_adapter_answers_under_its_alias(url: str, document: Document, of_the_model: str) -> None:
    """Return backends of one engine that differ in the model that they request."""
    answers = {}
    for name in ADAPTERS:
        await_ready(url, name)
        reply = post(url, document, name)
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, name), reply.text
        answers[name] = content(reply)
    assert answers["quiet"] == of_the_model
    assert answers["loud"] != of_the_model


def in_flight_over_sigterm(up: SpillwayProcess, url: str) -> tuple[str, str]:
    """Send SIGTERM between two tokens of a stream, and return its finish reason and its last event."""
    body = {
        "model": "local/demo",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 120,
        "ignore_eos": True,
        "stream": True,
    }
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as reply:
        assert reply.status_code == 200
        coming = events(reply.iter_lines())
        next(coming)
        up.process.send_signal(signal.SIGTERM)
        rest = list(coming)
    parsed = [json.loads(event) for event in rest if event != "[DONE]"]
    finishes = [c["finish_reason"] for event in parsed for c in event["choices"] if c["finish_reason"]]
    assert len(finishes) == 1, rest[-3:]
    return finishes[0], rest[-1]


def test_sigterm_while_the_engine_starts(standin: CloudProcess, tmp_path: Path) -> None:
    with running("up", up_config(tmp_path, standin), {"STANDIN_API_KEY": standin.key}) as up:
        processes = begun(up, ENGINE_LAUNCHED)
        theirs = sessions(processes)
        assert up.end(signal.SIGTERM) == 0, up.text
        assert alive(processes, 1.0) == in_sessions(theirs) == []


def test_a_killed_supervisor_leaves_no_engine_behind(standin: CloudProcess, tmp_path: Path) -> None:
    with running("up", up_config(tmp_path, standin), {"STANDIN_API_KEY": standin.key}) as up:
        processes = begun(up, ENGINE_LOADS)
        theirs = sessions(processes)
        assert up.end(signal.SIGKILL) == -signal.SIGKILL
        assert alive(processes, 60.0) == in_sessions(theirs) == []
