"""The relay with a seeded fault, as a system that the benchmark can start."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.processes import Command
from loadtests.bench.systems import StartSite

_SCRIPT = Path(__file__).with_name("faulty_relay.py")


@dataclass(frozen=True, slots=True)
class FaultyRelay:
    """`fault` is one of the faults of faulty_relay.py; `none` relays correctly."""

    fault: str
    what: str = "a relay with a seeded fault"

    @property
    def name(self) -> str:
        return f"relay-{self.fault}"

    def prepare(self) -> str:
        return "-"

    def command(self, site: StartSite) -> Command:
        return Command((sys.executable, str(_SCRIPT), str(site.port), str(site.upstream_port), self.fault))
