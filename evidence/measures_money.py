"""Money end to end: caps under two routers, the ledger against the provider's own bill, holds after crashes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from evidence.money.bill import BillTrial, bill_trial, checked
from evidence.money.leaks import Leaks, leak_trials
from evidence.money.overshoot import Overshoot, overshoot_trials
from evidence.money.shards import side_by_side
from evidence.results import Measurement
from spillway_router.testing.postgres_server import postgres_server

SEEDS = 200
REQUESTS = 80_000
KILLS = 24
CRASHES = 1000
ROUTER_CRASHES = 10
SHARDS = 4
_VERSIONS = {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _OvershootShard:
    where: str
    seeds: Sequence[int]
    fault: bool


def overshoot(say: Say, seeds: int = SEEDS, processes: int = SHARDS, *, fault: bool = False) -> dict[str, Measurement]:
    """Measure the most nano-dollars by which any cap was exceeded: held and spent in the ledger, or billed by the
    provider.

    Every seed runs at one concurrency (1, 8, 64, 256 in turn) on two router processes, on SQLite and on PostgreSQL.
    `fault` takes holds without looking at the caps (SQLite only).
    """
    shards = max(1, processes // 2)
    parts = [range(seeds)[shard::shards] for shard in range(shards)]
    shard_list = [
        _OvershootShard(where, part, fault)
        for part in parts
        for where in (("sqlite",) if fault else ("sqlite", "postgres"))
    ]
    outcomes = (
        side_by_side(_overshoot, shard_list, processes)
        if processes > 1
        else [_overshoot(shard) for shard in shard_list]
    )
    details: dict[str, Any] = {}
    for where in ("sqlite", "postgres"):
        mine = [one for shard, one in zip(shard_list, outcomes, strict=True) if shard.where == where]
        if mine:
            details[where] = _summed(mine)
            say(f"  {where}: {details[where]}")
    reasons = [f"{where}: no cap was ever reached" for where, one in details.items() if not one["seeds_with_refusals"]]
    if reasons:
        return {"budget.overshoot": Measurement(None, 0, {"reason": "; ".join(reasons), **details})}
    worst = max(one.worst_nano for one in outcomes)
    return {"budget.overshoot": Measurement(worst, seeds, details, _VERSIONS)}


def _overshoot(shard: _OvershootShard) -> Overshoot:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shard.where == "sqlite":
            return overshoot_trials(f"sqlite:///{folder / 'ledger.db'}", folder, shard.seeds, _quiet, fault=shard.fault)
        with postgres_server() as server:
            return overshoot_trials(server.new_database(), folder, shard.seeds, _quiet)


@dataclass(frozen=True, slots=True)
class _BillShard:
    requests: int
    kills: int
    seed: int
    forget: int


def independent_bill(
    say: Say, requests: int = REQUESTS, kills: int = KILLS, shards: int = SHARDS, *, forget: int = 0
) -> dict[str, Measurement]:
    """Measure the sum of the differences between ledger and bill over all attempts, after the bill was reconciled.

    There are so many shards, each with a router, a ledger and a provider. Attempts whose cost the ledger measured
    itself must agree before that. Faults that `verify` finds and holds left open count as well. `forget` is the number
    of lines left out of the bill.
    """
    shard_list = [
        _BillShard(requests=requests // shards, kills=kills // shards, seed=seed, forget=forget)
        for seed in range(shards)
    ]
    trials = side_by_side(_bill, shard_list, shards) if shards > 1 else [_bill(shard) for shard in shard_list]
    details = _summed(trials)
    say(f"  {details}")
    value = sum(one.difference_nano + one.measured_difference_nano + one.faults + one.leaked for one in trials)
    # A request that a breaker or the retry budget rejected before any attempt proves nothing.
    count = min(requests, details["attempts"])
    return {"ledger.independent_bill_difference": Measurement(value, count, details, _VERSIONS)}


def _bill(shard: _BillShard) -> BillTrial:
    with tempfile.TemporaryDirectory() as name:
        trial = bill_trial(
            folder=Path(name),
            requests=shard.requests,
            kills=shard.kills,
            seed=shard.seed,
            say=_quiet,
            forget=shard.forget,
        )
        checked(Path(name), trial)
    return trial


@dataclass(frozen=True, slots=True)
class _CrashShard:
    where: str
    crashes: int
    seed: int
    deaf: bool


def leaked(
    say: Say, crashes: int = CRASHES, router_crashes: int = ROUTER_CRASHES, shards: int = SHARDS, *, deaf: bool = False
) -> dict[str, Measurement]:
    """Count reservations that stay open after crashes, once other routers have done their upkeep.

    The money side of a router is killed in every stage of its calls, on SQLite and (one shard) on PostgreSQL; besides,
    whole routers are killed under load. Attempts that are closed twice or at a wrong cost and faults that `verify`
    finds count as well. With `deaf` nobody closes what the dead router left.
    """
    each = crashes // shards
    places = ["sqlite"] * (shards - 1) + ["sqlite" if deaf or shards == 1 else "postgres"]
    shard_list = [_CrashShard(where, each, seed, deaf) for seed, where in enumerate(places)]
    outcomes = side_by_side(_leaks, shard_list, shards) if shards > 1 else [_leaks(shard) for shard in shard_list]
    details = _summed(outcomes)
    value = sum(one.leaked + one.closed_twice + one.wrong_cost + one.faults for one in outcomes)
    say(f"  {details}")
    if router_crashes:
        routers = _bill(_BillShard(requests=router_crashes * 60, kills=router_crashes, seed=5, forget=0))
        details["whole_routers"] = asdict(routers)
        value += routers.leaked + routers.faults
        say(f"  whole routers: {routers.kills} kills, {routers.orphans} calls orphaned, {routers.leaked} leaked")
    return {"budget.leaked_reservations": Measurement(value, details["crashes"], details, _VERSIONS)}


def _leaks(shard: _CrashShard) -> Leaks:
    with tempfile.TemporaryDirectory() as name:
        if shard.where == "sqlite":
            return leak_trials(f"sqlite:///{name}/ledger.db", shard.crashes, shard.seed, _quiet, deaf=shard.deaf)
        with postgres_server() as server:
            return leak_trials(server.new_database(), shard.crashes, shard.seed, _quiet, deaf=shard.deaf)


def _quiet(_line: str) -> None:
    """Print nothing: the messages of several shards would be mixed up."""


def _summed(outcomes: Iterable[Any]) -> dict[str, Any]:
    """Add up the counts of several trials; of shares and worst cases take the largest."""
    total: dict[str, Any] = {}
    for one in outcomes:
        for name, value in asdict(one).items():
            if isinstance(value, dict):
                into = total.setdefault(name, {})
                for key, count in value.items():
                    into[str(key)] = into.get(str(key), 0) + count
            elif name.startswith(("over_", "peak_")):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    return total
