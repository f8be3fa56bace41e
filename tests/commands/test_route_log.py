"""A router whose log nobody reads answers on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx

from spillway_router.testing.processes import LISTENS, SPILLWAY, STOP_LIMIT_S, write

MORE_THAN_A_PIPE_HOLDS = 2_000
"""Requests that are logged, each with about 110 bytes; a pipe holds 64 KiB."""


def test_a_log_reader_that_stops_reading_stops_nothing(tmp_path: Path) -> None:
    price = {"input_per_million": "1", "output_per_million": "2"}
    nobody = {"name": "nobody", "provider": "generic", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    config = write(tmp_path, {"backends": [{**nobody, "api_key": "k", "price": price}]})
    log, written = os.pipe()
    with subprocess.Popen(
        [SPILLWAY, "route", "-c", str(config)],
        stdout=subprocess.PIPE,
        stderr=written,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        os.close(written)
        try:
            statuses, health = _asked(process)
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_LIMIT_S)
        finally:
            process.kill()
        text = b""
        while part := os.read(log, 1 << 20):
            text += part
        os.close(log)
    assert (statuses | {502, 503}, health, process.returncode) == ({502, 503}, 200, 0)
    assert len(text) > 60_000, "the log filled the pipe"
    assert text.count(b"ended with 50") > 0


def _asked(process: subprocess.Popen[str]) -> tuple[set[int], int]:
    """Send many requests that are logged; return their statuses and that of /health afterwards."""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    url = next(match.group(1) for line in lines if (match := LISTENS.search(line)))
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        asked = range(MORE_THAN_A_PIPE_HOLDS)
        return {client.post("/v1/chat/completions", json=body).status_code for _ in asked}, client.get(
            "/health"
        ).status_code
