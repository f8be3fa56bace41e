"""Self-checks against real vLLM with the shipped calibration: the engine judges its own answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from demo.product import CALIBRATION, CloudProcess

from spillway_router.ledger.store.open import open_ledger
from spillway_router.testing.processes import await_ready, running, write
from spillway_server.demo_model.documents import Document, prompt

if TYPE_CHECKING:
    from tests.conftest import RunningEngine

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("kind", ["p_true", "stated"])
def test_the_prefix_cache_serves_the_question(
    kind: str, engine: RunningEngine, standin: CloudProcess, documents: list[Document], tmp_path: Path
) -> None:
    """Whatever the demo model replies, the client's answer does not change, and most of the prompt is cached."""
    local = {"name": "local", "provider": "vllm", "base_url": engine.base_url, "model": engine.model}
    strong = {"name": "strong", "provider": "groq", "base_url": standin.url, "api_key": standin.key}
    config = write(
        tmp_path,
        {
            "backends": [local, {**strong, "model": "openai/gpt-oss-120b"}],
            "slo": {"ttft_ms": 60_000, "tpot_ms": 10_000},
            "confidence": {
                "calibration": str(CALIBRATION),
                "threshold": 0.0,
                "escalate_to": ["strong"],
                "self_check": {"ask": kind, "band": 1.0, "timeout_ms": 60_000},
            },
            "ledger": {"url": f"sqlite:///{tmp_path / 'ledger.db'}"},
        },
    )
    body = {"model": "auto", "messages": prompt(documents[0].text), "temperature": 0, "max_tokens": 200}
    with running("route", config) as process:
        await_ready(process.url, "local")
        reply = httpx.post(f"{process.url}/v1/chat/completions", json=body, timeout=120)
        assert reply.headers["x-spillway-backend"] == "local"
        assert "logprobs" not in reply.json()["choices"][0] or reply.json()["choices"][0]["logprobs"] is None
        request = reply.headers["x-request-id"]
        record = httpx.get(f"{process.url}/v1/requests/{request}", timeout=10).json()
    answered, self_check = record["attempts"]
    assert (self_check["backend"], self_check["outcome"]) == ("local", "ok")
    assert answered["confidence"] > 0
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        rows = {row.attempt_no: row for row in ledger.entries_of(request)}
    finally:
        ledger.close()
    assert (rows[2].decision, rows[2].reasons, rows[2].amount_nano) == ("audit", "self_check", 0)
    assert 1 <= rows[2].completion_tokens <= 6
    assert rows[2].cached_tokens > 0.5 * rows[1].prompt_tokens
