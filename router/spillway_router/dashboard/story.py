"""One request's whole story: what was asked, what was decided and why, each attempt, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.routing.model import Attempt, RequestRecord
from spillway_router.dashboard.times import duration
from spillway_router.ledger.entries import Entry

DECISIONS: Mapping[str, str] = {
    "local": "It stayed on the GPU.",
    "overflow": "The GPU could not serve it in time, or not at all, so it went to a cloud.",
    "escalated": "The local answer was not sure enough, so a stronger model was asked.",
    "fallback": "A backend that stood before was down, limited or failed, so another one was asked.",
    "routed": "A cloud was first choice, or was asked for.",
    "pinned": "The request named its backend.",
    "byok": "The caller brought a provider key of their own.",
    "cache": "A stored answer was given again.",
}
_OUTCOMES: Mapping[str, str] = {
    "ok": "the whole answer arrived",
    "overloaded": "its queue was full",
    "rate_limited": "it asked to be left alone (429)",
    "rejected": "it found the request at fault",
    "unauthorized": "it refused our credentials",
    "withdrawn": "it does not have the model",
    "unserved": "it can't serve this request",
    "failed": "it failed",
    "timeout": "it did not answer in time",
    "cancelled": "the client left",
    "unsent": "the call could not be sent",
}
_WIDTH = 1000.0
_LEFT = 190.0
_ROW = 30
_KINDS: Mapping[str, str] = {
    "reserved": "held, at most",
    "charged": "charged",
    "released": "given back",
    "adjusted": "corrected",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a request: when (seconds since its start, None for before), a heading, sentences, and its tone."""

    at: str
    heading: str
    sentences: tuple[str, ...]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt in the timeline: its label, the row's height, and the places of waiting and working in pixels."""

    label: str
    y: int
    wait_x: float
    wait_width: float
    work_x: float
    work_width: float
    tone: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All attempts on one axis of seconds: bars, ticks with their places, and the height in pixels."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    height: int


@dataclass(frozen=True, slots=True)
class Story:
    """A request from memory: its sentence, facts by name, steps, what was left out and why, and the timeline."""

    sentence: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    left_out: tuple[tuple[str, str, str], ...]
    candidates: tuple[tuple[str, str, str, str, str], ...]
    timeline: Timeline | None


def story_of(record: RequestRecord, key_names: Mapping[str, str], *, details: bool) -> Story:
    """Tell the story of a request. Without `details`, what a backend wrote is left out of a private one."""
    details = details or record.facts.privacy.may_leave
    decision = record.decision
    return Story(
        sentence=_sentence(record),
        facts=tuple(_facts(record, key_names)),
        steps=(_asked(record), _decided(record), *(_tried(one, details) for one in record.attempts), _ended(record)),
        left_out=tuple((one.backend, one.reason, one.detail) for one in decision.removed),
        candidates=tuple(
            (
                one.backend.name,
                one.backend.model,
                duration(one.ttft_s),
                IN_USD.money(one.bound_nano) if one.bound_nano else "-",
                ", ".join(one.reasons) or "-",
            )
            for one in decision.candidates
        ),
        timeline=_timeline(record),
    )


def _sentence(record: RequestRecord) -> str:
    if record.status >= 400:
        code = f" ({record.code})" if record.code else ""
        return f"It was {'refused' if not record.attempts else 'not answered'} with status {record.status}{code}."
    where = DECISIONS.get(record.decided, "It was answered.")
    cost = f" It cost {IN_USD.money(record.cost_nano)}." if record.cost_nano else ""
    return f"{where} {duration(record.total_s)} in all.{cost}"


def _facts(record: RequestRecord, key_names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    facts = record.facts
    caller = facts.caller
    yield "time", datetime.fromtimestamp(record.wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield "API key", key_names.get(caller.key_id, caller.key_id) or "none"
    yield "asked for", facts.model
    yield "answered by", f"{record.backend} ({record.model})" if record.backend else "nobody"
    yield "kind", f"{facts.endpoint}, {'streamed' if facts.stream else 'whole'}"
    may_leave = facts.privacy.may_leave
    why = ", ".join(facts.privacy.reasons)
    yield "privacy", "may leave this machine" if may_leave else f"private{f' ({why})' if why else ''}"
    if record.confidence is not None:
        yield "confidence", f"{record.confidence:.0%}"
    yield "status", str(record.status)
    yield "the router itself took", f"{record.overhead_s * 1000:,.1f} ms"
    yield "policy", record.decision.policy


def _asked(record: RequestRecord) -> Step:
    facts = record.facts
    needs = f" It needs {', '.join(sorted(facts.needs))}." if facts.needs else ""
    most = f" and at most {facts.max_tokens:,} tokens of answer" if facts.max_tokens else ""
    return Step(duration(0.0), "It arrived", (f"{facts.prompt_bytes:,} bytes of prompt{most}.{needs}",))


def _decided(record: RequestRecord) -> Step:
    decision = record.decision
    sentences = []
    if decision.candidates:
        names = ", then ".join(one.backend.name for one in decision.candidates)
        sentences.append(f"Order: {names}.")
    if decision.reasons:
        sentences.append(f"Because of: {', '.join(decision.reasons)}.")
    if decision.rules:
        sentences.append(f"Rules that applied: {', '.join(decision.rules)}.")
    if decision.refusal is not None:
        sentences.append(decision.refusal.message)
    return Step("", f"The router decided: {decision.kind}", tuple(sentences))


def _tried(attempt: Attempt, details: bool) -> Step:
    sentences = []
    if attempt.first_event_s is not None:
        sentences.append(f"First token after {duration(attempt.first_event_s - attempt.started_s)}.")
    outcome = attempt.outcome
    status = f", status {outcome.status}" if outcome.status and outcome.kind != "ok" else ""
    text = f": {outcome.detail}" if details and outcome.detail else ""
    sentences.append(f"After {duration(attempt.ended_s - attempt.started_s)} {_OUTCOMES[outcome.kind]}{status}{text}.")
    if outcome.usage is not None:
        used = outcome.usage
        sentences.append(f"{used.prompt_tokens:,} tokens in, {used.completion_tokens:,} out.")
    if attempt.charge_nano:
        bound = "" if attempt.at_most_nano is None else f", an estimate: at most {IN_USD.money(attempt.at_most_nano)}"
        sentences.append(f"Charged {IN_USD.money(attempt.charge_nano)}{bound}.")
    if attempt.confidence is not None:
        sentences.append(f"Confidence {attempt.confidence:.0%}.")
    if attempt.discarded:
        sentences.append("The client got another answer instead.")
    if attempt.left_out:
        sentences.append(f"Left out, as this backend refuses it: {', '.join(attempt.left_out)}.")
    tone = "good" if outcome.kind == "ok" and not attempt.discarded else "bad" if outcome.kind != "ok" else ""
    heading = f"Attempt {attempt.no}: {attempt.backend} ({attempt.model})"
    return Step(duration(attempt.started_s), heading, tuple(sentences), tone)


def _ended(record: RequestRecord) -> Step:
    cost = IN_USD.money(record.cost_nano) if record.cost_nano else "nothing beyond the rent"
    words = f"Status {record.status}, decision {record.decided or 'none'}. It cost {cost}."
    return Step(
        duration(record.total_s), "The client had its answer", (words,), "good" if record.status < 400 else "bad"
    )


def _timeline(record: RequestRecord) -> Timeline | None:
    if not record.attempts:
        return None
    whole_s = max(record.total_s, *(one.ended_s for one in record.attempts), 0.001)
    scale = (_WIDTH - _LEFT - 10) / whole_s
    bars = []
    for number, one in enumerate(record.attempts):
        first_s = one.ended_s if one.first_event_s is None else one.first_event_s
        candidate = next((c for c in record.decision.candidates if c.backend.name == one.backend), None)
        local = candidate is not None and candidate.backend.local
        tone = "failed" if one.outcome.kind != "ok" else "work" if local else "cloud"
        waits = one.first_event_s is not None
        start = _LEFT + one.started_s * scale
        bars.append(
            Bar(
                label=f"{one.no}. {one.backend}",
                y=number * _ROW + 6,
                wait_x=round(start, 1),
                wait_width=round((first_s - one.started_s) * scale, 1) if waits else 0.0,
                work_x=round(_LEFT + first_s * scale, 1) if waits else round(start, 1),
                work_width=max(2.0, round((one.ended_s - (first_s if waits else one.started_s)) * scale, 1)),
                tone=tone,
            )
        )
    ticks = tuple((round(_LEFT + whole_s * part / 4 * scale, 1), duration(whole_s * part / 4)) for part in range(5))
    return Timeline(tuple(bars), ticks, len(bars) * _ROW + 30)


def rows_of(entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    """Return the ledger's rows of a request as rows of a table: reserved, then charged."""
    return tuple(
        (
            datetime.fromtimestamp(entry.ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            str(entry.attempt),
            f"{entry.backend} ({entry.model})" if entry.model else entry.backend,
            _KINDS.get(entry.kind, entry.kind),
            IN_USD.money(entry.reserved_nano if entry.kind == "reserved" else entry.amount_nano),
            f"{entry.prompt_tokens:,} + {entry.completion_tokens:,}",
            entry.status or "-",
        )
        for entry in entries
    )
