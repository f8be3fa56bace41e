"""Secrets planted wherever the product takes one, and how many of them show where it writes something."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from evidence.results import Measurement, not_measured
from evidence.secrets import commands, own_keys, router
from evidence.secrets.canaries import Written, canaries
from evidence.streams import builds
from spillway_router import compiled

SECRETS = "security.secret_canaries_seen"
SEED = 20_261_129
_SHOWN = 20

Say = Callable[[str], None]
Part = Callable[[Written, Path], None]


def secret_canaries(say: Say, parts: Sequence[Part] | None = None) -> dict[str, Measurement]:
    """Count the places at which a secret is seen that must not be there.

    It is void if something did not happen that the search is about, such as the call of an upstream that repeats keys.
    """
    written = Written(canaries(SEED))
    with tempfile.TemporaryDirectory(prefix="spillway-secrets-") as name:
        for number, part in enumerate(_parts() if parts is None else parts):
            folder = Path(name) / str(number)
            folder.mkdir()
            part(written, folder)
            say(f"  {len(written.places)} places to search")
    missing = sorted(control for control, times in written.controls.items() if not times)
    sightings = written.sightings()
    for sighting in sightings:
        say(f"  {sighting}")
    details = {
        "secrets": len(written.secrets),
        "places": len(written.places),
        "bytes": sum(len(data) for _, data, _ in written.places),
        "seen": dict(Counter(sighting.secret for sighting in sightings)),
        "examples": [str(sighting) for sighting in sightings[:_SHOWN]],
        "hot_path": compiled.state(),
        "traces": "the product writes none",
    }
    if missing:
        return {SECRETS: not_measured(f"did not happen: {', '.join(missing)[:500]}")}
    return {SECRETS: Measurement(len(sightings), len(written.places), details)}


def _parts() -> Sequence[Part]:
    return (*(_days(build) for build in builds.available()), own_keys.own_keys, _rest)


def _days(build: builds.Build) -> Part:
    def run(written: Written, folder: Path) -> None:
        with ExitStack() as stack:
            env = {**stack.enter_context(builds.paths(build)), **router.environment(written.secrets)}
            site = router.Site(folder=folder, written=written, env=env, build=build, keys={})
            asyncio.run(router.good_and_bad_days(site))
            # The ledger of this day is what the commands read.
            shutil.copytree(folder / "data", folder.parent / "ledger", dirs_exist_ok=True)

    return run


def _rest(written: Written, folder: Path) -> None:
    """Run the commands on a router's ledger, `up` with its engine, and ledgers with a password."""
    env = {**os.environ, **router.environment(written.secrets)}
    for name in ("commands", "up", "database"):
        (folder / name).mkdir()
    commands.commands(written, folder / "commands", folder.parent / "ledger" / "ledger.db")
    for name, run in (("up", commands.engine), ("database", commands.database)):
        run(router.Site(folder=folder / name, written=written, env=env, build=name, keys={}))
    for name in ("commands", "up", "database"):
        site = router.Site(folder=folder / name, written=written, env=env, build=name, keys={})
        site.add_files()
