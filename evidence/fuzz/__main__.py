"""The command `python -m evidence.fuzz`, which `make fuzz` runs: it fuzzes a router, and what reads files, for a given
time.

The exit status is 0 if nothing was found and 1 otherwise; then the requests and inputs are in the folder that is
printed.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path

from evidence.fuzz.readers import crashes, readers, small_ledger
from evidence.fuzz.site import site
from evidence.fuzz.trial import Trial, deadline, fuzz

ROUND = 20_000
"""Requests after which the state is printed."""
READER_ROUND = 300
"""Inputs that each reader gets in that time."""


async def _run(seconds: float, seed: int, into: Path) -> bool:
    """Fuzz with one seed after the other until the time is over; return whether nothing was found."""
    over, clean = deadline(seconds), True
    with tempfile.TemporaryDirectory(prefix="spillway-fuzz-") as name:
        async with site(Path(name)) as (place, log):
            while not over():
                began = time.monotonic()
                trial = await fuzz(place, seed, ROUND, over)
                rate = trial.requests / (time.monotonic() - began)
                traces = log.read_text(errors="replace").count("Traceback")
                shown = f"{trial.requests} requests, {rate:.0f}/s, {traces} tracebacks"
                print(f"seed {seed}: {shown}, findings {dict(trial.counts)}", flush=True)
                _keep(trial, seed, into)
                clean = _read_files(seed, into) and clean and not trial.counts and not traces
                seed += 1
            if not clean:
                (into / "router.log").write_bytes(log.read_bytes())
    return clean


def _read_files(seed: int, into: Path) -> bool:
    """Give damaged inputs to every reader; return whether all of them were read or refused."""
    with tempfile.TemporaryDirectory(prefix="spillway-fuzz-") as name:
        folder = Path(name)
        kept = crashes(readers(small_ledger(folder)), seed, READER_ROUND, folder)
    for number, crash in enumerate(kept):
        path = into / f"{seed}-{crash.reader.replace(' ', '-')}-{number}.bin"
        path.write_bytes(crash.data)
        print(f"  {crash.reader}: {crash.error}: {path}")
    return not kept


def _keep(trial: Trial, seed: int, into: Path) -> None:
    for number, finding in enumerate(trial.findings):
        into.mkdir(parents=True, exist_ok=True)
        (into / f"{seed}-{number}.http").write_bytes(finding.raw)
        print(f"  {finding.what}: {into / f'{seed}-{number}.http'}")


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evidence.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to fuzz")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; a random one by default")
    parser.add_argument("--into", type=Path, default=Path(".cache/fuzz"), help="the folder for what is found")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    return 0 if asyncio.run(_run(options.seconds, seed, options.into)) else 1


if __name__ == "__main__":
    sys.exit(main())
