"""Spans and metrics pass through a real collector, which decodes them and sends them on."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.deploy.tools import tool
from tests.telemetry.receiver import Collector, collecting, values_of

from spillway_router.testing import Answer
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import pair

ANSWER = {"choices": [wire.message_choice({"content": "Left."})], "usage": wire.usage(11, 7)}


@contextmanager
def rotel(behind: Collector, folder: Path) -> Iterator[str]:
    """Run Rotel before a collector that records; yield its address for OTLP over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        grpc, http = (f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second))
    words = ["--otlp-grpc-endpoint", grpc, "--otlp-http-endpoint", http, "--pid-file", str(folder / "rotel.pid")]
    words += ["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-compression", "none"]
    words += ["--otlp-exporter-endpoint", behind.url, "--log-file", str(folder / "rotel.log")]
    with subprocess.Popen([tool("rotel-agent"), "start", *words], stdout=subprocess.DEVNULL) as process:
        try:
            yield http
        finally:
            process.terminate()


async def listens(address: str) -> None:
    """Wait until somebody listens."""
    host, _, port = address.partition(":")
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.05)


async def test_a_real_collector_takes_what_the_router_exports(tmp_path: Path) -> None:
    with collecting() as behind, rotel(behind, tmp_path) as address:
        await listens(address)
        more = f"telemetry: {{otlp_url: 'http://{address}', interval_s: 60}}\n"
        async with pair(Answer.json(ANSWER), folder=tmp_path, more=more) as (_, _, router):
            request_id = (await router.chat()).headers["x-request-id"]
        async with asyncio.timeout(20):
            while not (behind.spans and behind.metrics):
                behind.arrived.clear()
                await asyncio.to_thread(behind.arrived.wait, 1)
    request, call = sorted(behind.spans, key=lambda span: int(span.kind))
    assert values_of(request.attributes)["spillway.request_id"] == request_id
    assert call.parent_span_id == request.span_id
    assert values_of(call.attributes)["gen_ai.usage.output_tokens"] == 7
    assert "gen_ai.client.inference.duration" in behind.metrics
    assert behind.resources[0]["service.name"] == "spillway"
