"""The Quality page as values: what is promised of kept answers, whether it holds, what escalation costs and changes,
and what people thought of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.rows import feedback_rows
from spillway_router.ledger.reports.words import share

if TYPE_CHECKING:
    from spillway_router.ledger.tables.labels import LabelRecord
    from spillway_router.proxy.audits.audits import AuditCounts
    from spillway_router.proxy.audits.thresholds import ThresholdState

BINS = 10
BINS_HEAD = ("confidence", "audited answers", "mean confidence", "were right")
ESCALATION_HEAD = ("model", "asked", "used", "passed on", "cost", "each")
AUDITS_HEAD = ("answers", "threshold as configured", "threshold now", "audits", "found wrong")
_BLOCKED = 1.0
"""A threshold above this keeps nothing."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How local answers are judged now: the rule, the calibration in use (None without one), and the thresholds as
    audits moved them."""

    rule: ConfidenceRule
    calibration: Calibration | None
    thresholds: Sequence[ThresholdState]
    counts: AuditCounts
    audit_share: float


@dataclass(frozen=True, slots=True)
class Bin:
    """The audited answers of one range of confidences: their number, mean confidence, and the share that was right."""

    name: str
    answers: int
    mean: float | None
    right: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """Everything on the Quality page, in words and figures for people."""

    sentence: str
    tone: str
    promise: tuple[str, ...]
    bins: tuple[Bin, ...]
    bin_rows: tuple[tuple[str, ...], ...]
    chart: Mapping[str, Any]
    labelled: int
    escalation: tuple[str, ...]
    escalation_rows: tuple[tuple[str, ...], ...]
    audit_rows: tuple[tuple[str, ...], ...]
    audits: tuple[str, ...]
    ratings: tuple[tuple[str, ...], ...]


def quality_page(report: Report, labels: Iterable[LabelRecord], now: Confidence) -> Quality:
    """Return the page of some days: their report, the labels of audits in them, and the rules of the present."""
    bins = bins_of(labels)
    labelled = sum(one.answers for one in bins)
    sentence, tone = _sentence(now)
    return Quality(
        sentence=sentence,
        tone=tone,
        promise=_promise(now),
        bins=bins,
        bin_rows=tuple(
            (one.name, f"{one.answers:,}", _percent(one.mean), _percent(one.right)) for one in bins if one.answers
        ),
        chart=_chart(bins),
        labelled=labelled,
        escalation=_escalation(report, now),
        escalation_rows=_steps(report),
        audit_rows=tuple(_threshold_row(state) for state in now.thresholds),
        audits=_audits(now),
        ratings=tuple(tuple(row) for row in feedback_rows(report)),
    )


def bins_of(labels: Iterable[LabelRecord]) -> tuple[Bin, ...]:
    """Return what labelled answers say of confidences, in BINS ranges of the same width. Answers without a confidence
    are left out."""
    sums = [[0, 0.0, 0] for _ in range(BINS)]
    for label in labels:
        if label.confidence is not None:
            one = sums[min(BINS - 1, int(label.confidence * BINS))]
            one[0] += 1
            one[1] += label.confidence
            one[2] += label.right
    return tuple(
        Bin(
            name=f"{place / BINS:.0%} to {(place + 1) / BINS:.0%}",
            answers=int(number),
            mean=confidence / number if number else None,
            right=right / number if number else None,
        )
        for place, (number, confidence, right) in enumerate(sums)
    )


def _chart(bins: Sequence[Bin]) -> Mapping[str, Any]:
    full = [one for one in bins if one.answers]
    series = [
        {"name": "were right", "kind": "bar", "tone": "used", "values": [_digits(one.right) for one in full]},
        {"name": "confidence", "kind": "points", "tone": "against", "values": [_digits(one.mean) for one in full]},
    ]
    return {"x": [one.name for one in full], "unit": "%", "series": series}


def _digits(share_of: float | None) -> float | None:
    return None if share_of is None else round(share_of, 4)


def _percent(share_of: float | None) -> str:
    return "-" if share_of is None else f"{share_of:.1%}"


def _sentence(now: Confidence) -> tuple[str, str]:
    """Return the answer to the page's question with its tone: can one rely on what the GPU answers?"""
    if any(state.drift.revoked for state in now.thresholds):
        return "Audits contradict the threshold: no local answer is kept until it is calibrated again.", "bad"
    if not now.rule.escalate_to:
        return "Nothing is escalated: every answer of the GPU is final, however sure it is.", "plain"
    certificate = None if now.calibration is None else now.calibration.certificate
    if certificate is None:
        return (
            f"Answers below a confidence of {now.rule.threshold:.0%} get a better one, and nothing is promised: "
            "no calibration is in use.",
            "plain",
        )
    certified = None if now.calibration is None else now.calibration.threshold
    if certified is None:
        why = "was revoked" if certificate.revoked else "holds at no threshold"
        return f"Nothing is promised: the certificate of the calibration {why}.", "bad"
    if now.rule.threshold < certified:
        return (
            f"Nothing is promised: the threshold is set to {now.rule.threshold:.1%}, below the certified "
            f"{certified:.1%}.",
            "bad",
        )
    return (
        f"At most {certificate.alpha:.0%} of the answers that are kept are wrong, with a probability of "
        f"{1 - certificate.delta:.0%}.",
        "good",
    )


def _promise(now: Confidence) -> tuple[str, ...]:
    """Return what the certificate says, one sentence each."""
    if now.calibration is None:
        return ("Make a calibration with spillway calibrate, and name it in confidence.calibration.",)
    key, certificate, provenance = now.calibration.key, now.calibration.certificate, now.calibration.provenance
    sentences = [f"The calibration is for the model {key.model}, {key.quantisation}, task {key.task}."]
    if provenance.get("fitted_on"):
        sentences.append(f"It was fitted on {provenance['fitted_on']:,} labelled answers and certified on others.")
    if certificate.threshold is None:
        sentences.append(f"At none of its confidences at most {certificate.alpha:.0%} of {certificate.n:,} were wrong.")
        return tuple(sentences)
    kept = round(certificate.coverage * certificate.n)
    sentences.append(
        f"Of {certificate.n:,} labelled answers {kept:,} were at or above the threshold of "
        f"{certificate.threshold:.1%}, and {certificate.errors:,} of these were wrong "
        f"({share(certificate.errors, kept)}). It holds for traffic like these answers."
    )
    return tuple(sentences)


def _escalation(report: Report, now: Confidence) -> tuple[str, ...]:
    """Return what escalation costs and changes, one sentence each."""
    row = next((one for one in report.cloud.rows if one.decision == "escalated"), None)
    escalated = 0 if row is None else row.served.answers
    local = report.fixed.served.answers
    if not escalated or row is None:
        return ("No answer was escalated in these days.",)
    money = report.amounts.money
    sentences = [
        f"{escalated:,} of {local + escalated:,} answers of the GPU were not sure enough and got a better one "
        f"({share(escalated, local + escalated)}), for {money(row.cost_nano)}, "
        f"{report.amounts.or_dash(row.per_answer_nano)} each."
    ]
    agreed, differed = (
        sum(number for (_, result), number in now.counts.probes.items() if result == name)
        for name in ("agreed", "disagreed")
    )
    if agreed + differed:
        sentences.append(
            f"Of {agreed + differed:,} drafts that were compared with the better answer since the start, {differed:,} "
            f"said something else ({share(differed, agreed + differed)}): that is what escalation gained."
        )
    else:
        sentences.append("What it gained is not known: no draft was compared with its better answer yet.")
    return tuple(sentences)


def _steps(report: Report) -> tuple[tuple[str, ...], ...]:
    money, or_dash = report.amounts.money, report.amounts.or_dash
    return tuple(
        (
            f"{row.backend}/{row.model}",
            f"{row.asked:,}",
            f"{row.answered:,}",
            f"{row.discarded:,}",
            money(row.cost_nano),
            or_dash(row.per_answer_nano),
        )
        for row in report.steps
    )


def _threshold_row(state: ThresholdState) -> tuple[str, ...]:
    now = "keeps nothing" if state.threshold > _BLOCKED else f"{state.threshold:.1%}"
    drift = state.drift
    wrong = f"{drift.wrong:,} ({share(drift.wrong, drift.audits)})" if drift.audits else "-"
    return (state.kind, f"{state.configured:.1%}", now, f"{drift.audits:,}", wrong)


def _audits(now: Confidence) -> tuple[str, ...]:
    if not now.audit_share:
        return ("No answer is audited. Set confidence.audit_share, and a stronger model checks a share of them.",)
    asked = sum(now.counts.calls.values())
    return (
        f"{now.audit_share:.1%} of the kept answers are asked of a stronger model too; {asked:,} since the start of "
        "this router.",
    )
