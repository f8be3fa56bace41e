"""A router as it ships, in a process of its own, between two backends that note what reaches them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from loadtests.bench.processes import Command, free_port, running

from evidence.fuzz.requests import Keys
from evidence.fuzz.trial import Place
from evidence.fuzz.upstream import TaggingUpstream
from evidence.served import SPILLWAY, FailedError

READY_S = 60.0


def configuration(port: int, local: str, cloud: str, folder: Path) -> str:
    """Return a configuration in which the cloud stands first, so that only privacy keeps a request from it."""
    return f"""
listen: 127.0.0.1:{port}
backends:
  - {{name: local, provider: vllm, local: true, base_url: '{local}/v1', model: demo}}
  - {{name: cloud, provider: generic, base_url: '{cloud}/v1', model: cloud-m, api_key: k,
      price: {{input_per_million: "0.1", output_per_million: "0.1"}}}}
aliases: {{auto: {{chain: [cloud, local]}}}}
privacy: {{default: any, keywords: [password, ssn]}}
gpu: {{price_per_hour: "0"}}
keys: {{required: true}}
ledger: {{url: 'sqlite:///{folder}/ledger.db'}}
"""


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Place, Path]]:
    """Run the router and its backends; yield the place and the router's log.

    Raises:
        FailedError: the router did not start.
    """
    async with TaggingUpstream() as local, TaggingUpstream() as cloud:
        port = free_port()
        path, log = folder / "spillway.yaml", folder / "router.log"
        path.write_text(configuration(port, local.url, cloud.url, folder))
        created = subprocess.run(
            [str(SPILLWAY), "keys", "create", "fuzz", "-c", str(path), "--json"], capture_output=True, check=True
        )
        secret = json.loads(created.stdout)["key"]
        with running(Command((str(SPILLWAY), "route", "-c", str(path))), None, log):
            await _until_ready(f"http://127.0.0.1:{port}/ready", log)
            keys = Keys(secret.encode())
            yield Place(host="127.0.0.1", port=port, keys=keys, local=local.tags, cloud=cloud.tags), log


async def _until_ready(url: str, log: Path) -> None:
    try:
        async with asyncio.timeout(READY_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(url)).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise FailedError(f"the router did not start: {log.read_text(errors='replace')[-600:]}") from None
