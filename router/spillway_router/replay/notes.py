"""What a reader of a replay must know, one line each: what was modelled, left out or guessed."""

from __future__ import annotations

from collections.abc import Sequence

from spillway_router.core.replay.replay import CloudModel
from spillway_router.replay.ledger_rows import LedgerRequests
from spillway_router.replay.policies import NamedPolicy


def trace_notes(policies: Sequence[NamedPolicy], cloud: CloudModel) -> list[str]:
    """Return the notes on a replay of a trace."""
    return ["A trace knows of no failures, and of no confidence unless it has that column.", *_notes(policies, cloud)]


def ledger_notes(requests: LedgerRequests, policies: Sequence[NamedPolicy], cloud: CloudModel) -> list[str]:
    """Return the notes on a replay of a ledger, once all of it was read."""
    drawn = requests.confidences
    notes = [
        "The ledger keeps no text, tools or limits and no refused requests. Each counts as a streamed chat, and one "
        "that chose its backend stays with it.",
        f"Alias, complexity and language are on record for {requests.with_traits:,} requests, those whose text a rule "
        "looked at. The others count as asking for auto.",
        f"Confidence: {drawn.recorded:,} recorded, {drawn.drawn:,} drawn from those of the same task, "
        f"{drawn.unknown:,} without any, which never escalate.",
    ]
    if requests.skipped:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(requests.skipped.items()))
        notes.append(f"Left out, because no policy decides them: {left_out}.")
    return [*notes, *_notes(policies, cloud)]


def _notes(policies: Sequence[NamedPolicy], cloud: CloudModel) -> list[str]:
    notes = [
        f"Modelled: the engine by its configured rates, every cloud with {cloud.ttft_s:g} s to the first token and "
        f"{cloud.tokens_per_s:g} tokens/s. Nothing fails, and prices are today's."
    ]
    if any(policy.terms.budgets for policy in policies):
        notes.append("Budgets begin empty at the first request; caps of single users and keys' own caps are left out.")
    notes += [f"{policy.name}: {remark}." for policy in policies for remark in policy.remarks]
    return notes
