"""The Now page as values: is it well, will the next request stay local, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from spillway_router.core.money.budget import BudgetLine, LineBalance
from spillway_router.core.money.currency import IN_USD
from spillway_router.core.routing.backlog import Prediction, Slo, overflow_reasons, predict
from spillway_router.core.routing.model import Backend, BackendSignals, RequestRecord, Signals
from spillway_router.dashboard.times import duration
from spillway_router.dashboard.traffic import STEP_S, Step, counted, quantile_s
from spillway_router.ledger.writer import WriterHealth
from spillway_router.signals.gpu import GpuReading

PROMPT_TOKENS = 500
"""The prompt of the next request, as the page imagines it."""
SHOWN_REQUESTS = 20
_SERIES = (
    ("local", "used", ("local",)),
    ("overflow", "cloud", ("overflow",)),
    ("escalated", "escalated", ("escalated",)),
    ("fallback", "fallback", ("fallback",)),
    ("other", "other", ("routed", "pinned", "byok", "cache", "")),
    ("refused", "bad", ("refused",)),
)
_REASONS: Mapping[str, str] = {
    "queue": "too much waits before it",
    "slo": "its tokens would come too slowly",
    "kv": "its cache is full",
}
_STEPS_PER_POINT = 4
State = Literal["good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Present:
    """What the router knows at one moment (`wall_s` in epoch seconds, `monotonic_s`)."""

    wall_s: float
    monotonic_s: float
    signals: Signals
    in_flight: Mapping[str, int]
    backends: Mapping[str, Backend]
    slo: Slo
    steps: Sequence[Step]
    records: Sequence[RequestRecord]
    budgets: Sequence[tuple[BudgetLine, LineBalance]]
    ledger: WriterHealth
    gpus: Sequence[GpuReading]
    key_names: Mapping[str, str]
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend: its state in words, and what it has to do. Figures that it does not have are dashes."""

    name: str
    model: str
    where: str
    state: str
    tone: State
    why: str
    in_flight: int
    waiting: str
    backlog: str
    kv: str
    first_token: str


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One finished request in a list."""

    id: str
    at: str
    key: str
    asked: str
    decision: str
    tone: str
    reasons: str
    model: str
    first_token: str
    total: str
    cost: str
    status: str


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One budget in its present period: spent, held and limit in words, and the share of the limit that is taken."""

    name: str
    spent: str
    held: str
    limit: str
    share: float


@dataclass(frozen=True, slots=True)
class Now:
    """Everything on the Now page."""

    sentence: str
    tone: State
    support: tuple[str, ...]
    backends: tuple[BackendRow, ...]
    decisions: Mapping[str, Any]
    decision_counts: tuple[tuple[str, int], ...]
    first_tokens: Mapping[str, Any]
    first_token_words: str
    requests: tuple[RequestRow, ...]
    budgets: tuple[BudgetRow, ...]
    gpus: tuple[str, ...]
    is_empty: bool


def now_page(present: Present) -> Now:
    """Return the page of one moment."""
    sentence, tone = _sentence(present)
    counts = counted(present.steps)
    return Now(
        sentence=sentence,
        tone=tone,
        support=tuple(_support(present)),
        backends=tuple(_backend_row(name, backend, present) for name, backend in present.signals.backends.items()),
        decisions=_decisions(present.steps),
        decision_counts=tuple(
            (name, number) for name, _, of in _SERIES if (number := sum(counts[one] for one in of)) or name == "local"
        ),
        first_tokens=_first_tokens(present),
        first_token_words=_first_token_words(present),
        requests=tuple(request_row(record, present.key_names) for record in present.records),
        budgets=tuple(_budget_row(*pair) for pair in present.budgets),
        gpus=tuple(map(_gpu_words, present.gpus)),
        is_empty=not present.records and not counts,
    )


def _locals(present: Present) -> list[tuple[str, BackendSignals]]:
    backends = present.signals.backends.items()
    return [(name, one) for name, one in backends if name in present.backends and present.backends[name].local]


def _is_up(one: BackendSignals) -> bool:
    return one.health == "up" and not one.breaker_open


def _sentence(present: Present) -> tuple[str, State]:
    """Answer in one sentence whether all is well and where the next request would go."""
    here = _locals(present)
    clouds = [name for name, one in present.signals.backends.items() if _is_up(one) and name not in dict(here)]
    stay = _stay_words(present.steps)
    if present.is_leaving:
        return "This router was asked to stop: it finishes what it has and takes nothing new.", "warn"
    if present.ledger.degraded:
        return "The ledger can't be written, so local requests are served and paid calls are refused.", "bad"
    up = [(name, one) for name, one in here if _is_up(one)]
    if not up and not clouds:
        return "No backend can answer now.", "bad"
    if not here:
        return f"All well, without a GPU: every request goes to {_named(clouds)}.", "good"
    if not up:
        name, one = here[0]
        if one.health == "starting":
            return f"{name} is warming up; until then requests go to {_named(clouds) or 'nobody'}.", "warn"
        why = (one.health_reason or one.breaker_reason).rstrip(".")
        return f"{name} is down{f' ({why})' if why else ''}; requests go to {_named(clouds) or 'nobody'}.", "bad"
    name, one, prediction = min(
        ((name, one, _next(one)) for name, one in up), key=lambda of: of[2].ttft_s if of[2] else 0.0
    )
    if prediction is None:
        return f"All well: {stay}.", "good"
    reasons = overflow_reasons(prediction, present.slo, one.margin)
    if reasons:
        why = " and ".join(_REASONS.get(reason, reason) for reason in reasons)
        where = f"go to {_named(clouds)}" if clouds else "have to wait, as no cloud can take it"
        return f"The GPU is full: the next request would {where}, because {why}.", "warn"
    first = "less than 0.1 s" if prediction.ttft_s < 0.1 else f"about {prediction.ttft_s:,.1f} s"
    return (
        f"All well: {stay}; the next one gets its first token in {first} ({present.slo.ttft_s:g} s is promised).",
        "good",
    )


def _named(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _next(one: BackendSignals) -> Prediction | None:
    if one.backlog is None or one.rates is None:
        return None
    return predict(one.backlog, one.rates, PROMPT_TOKENS, one.expected_output_tokens)


def _stay_words(steps: Iterable[Step]) -> str:
    counts = counted(steps)
    whole = sum(counts.values())
    if not whole:
        return "no request in the last 15 minutes"
    return f"{counts['local'] / whole:.0%} of {whole:,} requests stayed on the GPU in the last 15 minutes"


def _support(present: Present) -> Iterable[str]:
    for name, one in present.signals.backends.items():
        if one.breaker_open and one.breaker_reason:
            yield f"{name} gets no requests for now: {one.breaker_reason.rstrip('.')}."
        if one.limited_until > present.monotonic_s:
            yield f"{name} asked to be left alone for {one.limited_until - present.monotonic_s:,.0f} s more."
    if present.ledger.degraded:
        yield f"{present.ledger.queued_rows:,} rows wait for the ledger: {present.ledger.reason}"
    for line, balance in present.budgets:
        if line.limit_nano and balance.taken_nano >= 0.9 * line.limit_nano:
            yield f"The budget of {line.scope} per {line.period} is at {balance.taken_nano / line.limit_nano:.0%}."


def _backend_row(name: str, one: BackendSignals, present: Present) -> BackendRow:
    backend = present.backends.get(name)
    state, tone = _state(one, present.monotonic_s)
    prediction = _next(one)
    return BackendRow(
        name=name,
        model=backend.model if backend is not None else "",
        where="GPU" if backend is not None and backend.local else "cloud",
        state=state,
        tone=tone,
        why=one.health_reason if one.health != "up" else one.breaker_reason,
        in_flight=present.in_flight.get(name, 0),
        waiting="-" if one.backlog is None else f"{one.backlog.waiting_first_token:,}",
        backlog="-" if one.backlog is None else f"{one.backlog.prefill_tokens:,} tokens",
        kv=_kv(one),
        first_token=duration(one.ttft_s if prediction is None else prediction.ttft_s),
    )


def _kv(one: BackendSignals) -> str:
    if one.backlog is None or one.rates is None:
        return "-"
    return f"{one.backlog.kv_tokens / one.rates.kv_capacity_tokens:.0%}"


def _state(one: BackendSignals, monotonic_s: float) -> tuple[str, State]:
    if one.health == "starting":
        return "warming up", "warn"
    if one.health != "up":
        return "down", "bad"
    if one.breaker_open:
        return "breaker open", "bad"
    if one.limited_until > monotonic_s:
        return "rate-limited", "warn"
    return "up", "good"


def _clock(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%H:%M:%S")


def _decisions(steps: Sequence[Step]) -> Mapping[str, Any]:
    grouped = _points(steps)
    series = [
        {"name": name, "kind": "bar", "tone": tone, "values": values}
        for name, tone, of in _SERIES
        if any(values := [sum(step.decided[one] for step in group for one in of) for group in grouped])
        or name == "local"
    ]
    return {"x": [_clock(group[0].start_s)[:5] for group in grouped], "unit": "", "series": series}


def _points(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """Group the steps into minutes."""
    return [steps[at : at + _STEPS_PER_POINT] for at in range(0, len(steps), _STEPS_PER_POINT)]


def _first_tokens(present: Present) -> Mapping[str, Any]:
    grouped = _points(present.steps)

    def values(share: float) -> list[float | None]:
        times = [quantile_s(group, share) for group in grouped]
        return [None if time is None else round(time, 3) for time in times]

    return {
        "x": [_clock(group[0].start_s)[:5] for group in grouped],
        "unit": "s",
        "series": [
            {"name": "half of them (p50)", "kind": "points", "tone": "used", "values": values(0.5)},
            {"name": "99 of 100 (p99)", "kind": "points", "tone": "escalated", "values": values(0.99)},
        ],
        "marks": [{"name": f"promise {present.slo.ttft_s:g} s", "value": present.slo.ttft_s}],
    }


def _first_token_words(present: Present) -> str:
    half, most = quantile_s(present.steps, 0.5), quantile_s(present.steps, 0.99)
    if half is None or most is None:
        return "No first token in the last 15 minutes."
    of_minutes = f"in {len(present.steps) * STEP_S // 60} minutes"
    return f"Half of the first tokens came within {duration(half)}, 99 of 100 within {duration(most)}, {of_minutes}."


def request_row(record: RequestRecord, key_names: Mapping[str, str]) -> RequestRow:
    """Return a finished request as the row of a list. It has none of the request's text."""
    key_id = record.facts.caller.key_id
    first = next((one.first_event_s for one in record.attempts if one.first_event_s is not None), None)
    decision = record.decided if record.status < 400 else "refused" if not record.attempts else "failed"
    return RequestRow(
        id=record.facts.request_id,
        at=_clock(record.wall_s),
        key=key_names.get(key_id, key_id) or "-",
        asked=record.facts.model,
        decision=decision,
        tone=tone_of(decision),
        reasons=", ".join(reason for reason in record.reasons if reason != decision),
        model=record.model or "-",
        first_token=duration(first),
        total=duration(record.total_s),
        cost=IN_USD.money(record.cost_nano) if record.cost_nano else "-",
        status=str(record.status),
    )


def tone_of(decision: str) -> str:
    """Return the tone of a decision's chip."""
    return {"local": "good", "overflow": "info", "escalated": "info", "fallback": "warn"}.get(
        decision, "bad" if decision in ("refused", "failed") else ""
    )


def _budget_row(line: BudgetLine, balance: LineBalance) -> BudgetRow:
    money = IN_USD.money
    return BudgetRow(
        name=f"{'all cloud spend' if line.scope == 'all' else line.scope}, per {line.period}",
        spent=money(balance.spent_nano),
        held=money(balance.reserved_nano) if balance.reserved_nano else "",
        limit=money(line.limit_nano),
        share=min(1.0, balance.taken_nano / line.limit_nano) if line.limit_nano else 1.0,
    )


def _gpu_words(reading: GpuReading) -> str:
    parts = (
        None if reading.utilisation is None else f"busy {reading.utilisation:.0%} of the time",
        None if reading.memory_used_bytes is None else f"memory {reading.memory_used_bytes / 2**30:,.1f} GiB",
        None if reading.temperature_c is None else f"{reading.temperature_c:.0f} degrees Celsius",
        None if reading.power_w is None else f"{reading.power_w:,.0f} W",
    )
    return f"GPU {reading.index}: {', '.join(filter(None, parts)) or 'no readings'}"
