"""The review of a time: what clouds cost, who sent it there, what a cheaper answer would have been worth, what to try.

The changes to try are not guessed. Each of a few is replayed over the same requests, and those that would have saved
most are shown with what they would have done to waits and quality.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.config.assemble import Assembly
from spillway_router.config.load import Loaded
from spillway_router.core.money.currency import IN_USD
from spillway_router.core.routing.model import Backend
from spillway_router.replay.ledger_rows import RecordedRequest
from spillway_router.replay.policies import Change
from spillway_router.replay.rows import PolicyRow

MOST_GROUPS = 10_000
MOST_TRIALS = 12
SHOWN = 3
"""Changes that are shown."""
MORE_REFUSED = 0.001
"""A change that refuses a larger share than this more is no saving."""
REST = "(others)"

_BECAUSE = {
    "escalated": "the local answer was unsure",
    "overflow": "the engine could not serve them in time",
    "fallback": "a backend before it was down",
    "pinned": "the requests named it",
}


@dataclass(frozen=True, slots=True)
class DearGroup:
    """Requests that clouds answered for the same reason: where they went, why, how many, and nano-dollars.

    The local answer of `judged` of them was judged, and that of `as_well` was right, so that a cheaper one would have
    done.
    """

    backend: str
    kind: str
    reasons: str
    task: str
    tier: str
    requests: int
    cost_nano: int
    judged: int
    as_well: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A change of the policy, with what it would have done and the command that shows it."""

    change: str
    command: str
    saved_nano: int
    row: PolicyRow


@dataclass(frozen=True, slots=True)
class Review:
    """The whole review. `first` is the answer in one sentence; `rules` are the present rules with what they cost."""

    first: str
    now: PolicyRow
    recorded: PolicyRow
    groups: tuple[DearGroup, ...]
    rules: tuple[tuple[str, int, int], ...]
    """Name, requests and nano-dollars."""
    trials: tuple[Trial, ...]


class DearRequests:
    """Adds up what passes through, by where it went and why. There are at most `MOST_GROUPS` sums."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str, str], list[int]] = {}

    def passing(self, requests: Iterable[RecordedRequest]) -> Iterator[RecordedRequest]:
        """Yield the requests, and add up what clouds answered."""
        for one in requests:
            if not one.local:
                self._add(one)
            yield one

    def groups(self) -> tuple[DearGroup, ...]:
        """Return the sums, the dearest first."""
        ordered = sorted(self._sums.items(), key=lambda item: (-item[1][1], item[0]))
        return tuple(
            DearGroup(
                backend=backend,
                kind=kind,
                reasons=reasons,
                task=task,
                tier=tier,
                requests=sums[0],
                cost_nano=sums[1],
                judged=sums[2],
                as_well=sums[3],
            )
            for (backend, kind, reasons, task, tier), sums in ordered
        )

    def _add(self, one: RecordedRequest) -> None:
        key = (one.backend, one.kind, one.reasons, one.past.task, one.past.caller.tier)
        if key not in self._sums and len(self._sums) >= MOST_GROUPS:
            key = (REST, one.kind, "", "", "")
        sums = self._sums.setdefault(key, [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += one.cost_nano
        if one.past.local_right is not None:
            sums[2] += 1
            sums[3] += one.past.local_right


def trial_changes(loaded: Loaded, assembly: Assembly) -> tuple[Change, ...]:
    """Return the changes that are worth a try under this configuration."""
    settings, backends = loaded.settings, assembly.policy.backends
    changes = []
    if assembly.policy.confidence.escalate_to:
        threshold = settings.confidence.threshold
        lower = [round(threshold - step, 3) for step in (0.05, 0.1, 0.2) if threshold > step]
        changes += [Change(("confidence", "threshold"), value) for value in lower]
        changes += _cheapest(("confidence", "escalate_to"), assembly.policy.confidence.escalate_to, backends)
    if any(backend.local for backend in backends.values()):
        changes += [Change(("slo", "ttft_ms"), round(settings.slo.ttft_ms * factor)) for factor in (1.5, 2)]
    for alias, chain in settings.chains().items():
        changes += _cheapest(("aliases", alias, "chain"), chain, backends)
    for rule in settings.policy.rules:
        first = next((backends[name] for name in (*rule.chain, *rule.prefer) if name in backends), None)
        if first is not None and not first.local:
            changes.append(Change(("policy", "rules", rule.name), None))
    return tuple(changes[:MOST_TRIALS])


def review_of(
    recorded: PolicyRow, now: PolicyRow, groups: Sequence[DearGroup], trials: Sequence[Trial], since: str
) -> Review:
    """Return the review, with the changes that would have saved most."""
    most_refused = now.shares.refused + MORE_REFUSED
    useful = [trial for trial in trials if trial.saved_nano > 0 and trial.row.shares.refused <= most_refused]
    best = tuple(sorted(useful, key=lambda trial: -trial.saved_nano)[:SHOWN])
    rules = sorted(now.rules.items(), key=lambda item: -item[1]["cost_nano"])
    return Review(
        first=_first(recorded, now, groups, best, since),
        now=now,
        recorded=recorded,
        groups=tuple(groups),
        rules=tuple((name, one["requests"], one["cost_nano"]) for name, one in rules),
        trials=best,
    )


def trial_of(change: Change, row: PolicyRow, now: PolicyRow, arguments: Sequence[str]) -> Trial:
    """Return a change that was replayed, with the command that replays it."""
    command = shlex.join(["spillway", "replay", *arguments, "--set", str(change)])
    return Trial(str(change), command, now.cloud_nano - row.cloud_nano, row)


def because(group: DearGroup) -> str:
    """Return why requests went to a cloud, in words."""
    if group.kind == "routed":
        return f"the policy sends them there ({group.reasons or 'alias'})"
    words = _BECAUSE.get(group.kind, group.kind)
    return f"{words} ({group.reasons})" if group.reasons and group.kind != "pinned" else words


def _cheapest(path: tuple[str, ...], names: Sequence[str], backends: Mapping[str, Backend]) -> list[Change]:
    """Return the change that puts the clouds of a list in the order of their prices, if they are not."""
    clouds = [name for name in names if name in backends and not backends[name].local]
    by_price = iter(sorted(clouds, key=lambda name: _price(backends[name])))
    ordered = [next(by_price) if name in clouds else name for name in names]
    return [] if ordered == list(names) else [Change(path, ordered)]


def _price(backend: Backend) -> float:
    """Return the price of a million tokens each way, in USD."""
    tariff = backend.tariff
    return 0.0 if tariff is None else float(tariff.input_per_million + tariff.output_per_million)


def _first(recorded: PolicyRow, now: PolicyRow, groups: Sequence[DearGroup], best: Sequence[Trial], since: str) -> str:
    if not groups:
        return f"Since {since} no cloud answered any of the {recorded.requests:,} requests."
    dearest = groups[0]
    away = sum(group.requests for group in groups)
    text = (
        f"Since {since} clouds answered {away:,} of {recorded.requests:,} requests for "
        f"{IN_USD.money(recorded.cloud_nano)}; most of it, {IN_USD.money(dearest.cost_nano)}, went to {dearest.backend}"
        f"{f' for {dearest.task}' if dearest.task else ''}, because {because(dearest)}."
    )
    if not best:
        return f"{text} None of the changes that were replayed would have saved money."
    share = best[0].saved_nano / now.cloud_nano
    return (
        f"{text} The change {best[0].change} would have saved most: {IN_USD.money(best[0].saved_nano)} ({share:.0%})."
    )
