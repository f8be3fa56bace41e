"""Fixtures of the end-to-end tests: a router in front of the real engine, and a stand-in cloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from demo.product import CloudProcess, cloud
from demo.workload import DocumentJob

from spillway_router.testing.processes import SpillwayProcess, await_ready, running, write
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, Document, generate

if TYPE_CHECKING:
    from tests.conftest import RunningEngine

DOCUMENTS = [generate(seed) for seed in HELD_OUT_SEEDS[:8]]


@dataclass(frozen=True, slots=True)
class Front:
    """A running router with its address and config file."""

    url: str
    config: Path
    process: SpillwayProcess


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Return clean reports that the demo model was not trained on."""
    return DOCUMENTS


@pytest.fixture(scope="module")
def front(engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run a router without keys in front of the real engine."""
    yield from _front(engine, tmp_path_factory.mktemp("front"), required=False)


@pytest.fixture(scope="module")
def locked(engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run a router that requires keys in front of the real engine."""
    yield from _front(engine, tmp_path_factory.mktemp("locked"), required=True)


def _front(engine: RunningEngine, folder: Path, *, required: bool) -> Iterator[Front]:
    local = {"name": "local", "provider": "vllm", "base_url": engine.base_url, "model": engine.model}
    # The promise is wide, so that no request overflows because other tests keep the machine busy.
    slo = {"ttft_ms": 60_000, "tpot_ms": 10_000}
    config = write(folder, {"backends": [local], "slo": slo, "keys": {"required": required}})
    with running("route", config) as process:
        await_ready(process.url, None if required else "local")  # without a key /ready says no more
        yield Front(process.url, config, process)


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    """Run a stand-in cloud: a real HTTP process that knows the answers to the documents."""
    jobs = [
        DocumentJob(
            number=number,
            phase="calm",
            at_s=0.0,
            text=document.text,
            truth=document.truth,
            noise=document.noise,
            private=False,
            stream=False,
        )
        for number, document in enumerate(DOCUMENTS)
    ]
    with cloud(tmp_path_factory.mktemp("cloud"), jobs) as running_cloud:
        yield running_cloud
