"""One system under test, which runs on its core in front of a stub upstream on another core."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.processes import CACHE, Cores, free_port, running, stub_upstream, wait_until_it_answers
from loadtests.bench.systems import StartSite, System


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """A running system: the root of its process tree, its port, its bearer token and the stub's port."""

    pid: int
    port: int
    key: str
    upstream_port: int
    cores: Cores


@contextlib.contextmanager
def started(system: System) -> Iterator[RunningSystem]:
    """Start stub and system, wait until a request gets a complete answer, and end both when the block ends.

    Raises:
        BenchError: it did not start or did not answer; the message has the end of its log.
        Unavailable: it can't be configured here.
    """
    cores = Cores.of_this_machine()
    CACHE.mkdir(parents=True, exist_ok=True)
    # In the checkout, since the system's temporary folder may be in memory, where durable writes cost nothing.
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder:
        scratch = Path(folder)
        with stub_upstream(cores, scratch) as upstream_port:
            place = StartSite(free_port(), upstream_port, scratch)
            command = system.command(place)
            log = scratch / "system.log"
            with running(command, cores.system, log) as process:
                wait_until_it_answers(process, place.port, command.key, log)
                yield RunningSystem(
                    pid=process.pid, port=place.port, key=command.key, upstream_port=upstream_port, cores=cores
                )
