"""The quality gate: a converted model against the GGUF that it came from. Pure: figures in, verdict out.

1. enough samples, of the kind of work that the GGUF itself does, else nothing is said;
2. perplexity of the known answers, candidate over reference, at most `most_ratio`;
3. share of known answers right, reference minus candidate, at most `most_drop`;
4. where llama.cpp judged the GGUF: its perplexity within `most_apart` of the unpacked weights', and at least
   `least_agreement` of the greedy answers the same, which proves the unpacking (names, row order, tokenizer).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a model must hold: samples, perplexity of the GGUF itself, perplexity ratio, accuracy drop, agreement
    (shares). Beyond `most_perplexity` the samples are not the model's kind of work, and compare nothing."""

    least_samples: int = 20
    most_perplexity: float = 100.0
    most_ratio: float = 1.10
    most_drop: float = 0.02
    most_apart: float = 0.05
    least_agreement: float = 0.90


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What one engine made of the samples: perplexity (None: no known answers) and its greedy answers in order."""

    perplexity: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether the model may be blessed, why not, and every figure."""

    blessed: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]


def right(answer: str, known: str) -> bool:
    """Whether an answer says what is known: equal as JSON where both are JSON, else as text without outer blanks."""
    try:
        return bool(json.loads(answer) == json.loads(known))
    except (ValueError, RecursionError):
        return answer.strip() == known.strip()


def agreement(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Share of answers that are the same text, 0 to 1; outer blanks don't count."""
    pairs = list(zip(first, second, strict=True))
    return sum(a.strip() == b.strip() for a, b in pairs) / len(pairs) if pairs else 0.0


def decide(
    known: tuple[str | None, ...],
    reference: EngineOutput,
    candidate: EngineOutput,
    llama: EngineOutput | None,
    bounds: Bounds,
) -> GateVerdict:
    """The verdict; `known` holds the right answer of each sample or None."""
    figures: dict[str, Any] = {
        "samples": len(known),
        "reference_perplexity": reference.perplexity,
        "perplexity": candidate.perplexity,
        "agreement_with_reference": agreement(reference.answers, candidate.answers),
        "llama_cpp": llama is not None,
    }
    reasons: list[str] = []
    if len(known) < bounds.least_samples:
        reasons.append(f"only {len(known)} samples, at least {bounds.least_samples} are wanted.")
    _perplexity(figures, reasons, reference, candidate, bounds)
    _accuracy(figures, reasons, known, (reference, candidate), bounds)
    if llama is not None:
        _llama(figures, reasons, reference, llama, bounds)
    return GateVerdict(not reasons, tuple(reasons), figures)


def _perplexity(
    figures: dict[str, Any], reasons: list[str], reference: EngineOutput, candidate: EngineOutput, bounds: Bounds
) -> None:
    if reference.perplexity is None or candidate.perplexity is None:
        reasons.append("no sample has a known answer, so there is no perplexity.")
        return
    if not reference.perplexity <= bounds.most_perplexity:
        reasons.append(
            f"the GGUF itself has perplexity {reference.perplexity:.4g} on the samples: they are not its kind of work, "
            "give its own with --gate."
        )
    ratio = candidate.perplexity / reference.perplexity
    figures["perplexity_ratio"] = ratio
    # Written so that a NaN falls short.
    if not ratio <= bounds.most_ratio:
        reasons.append(f"perplexity is {ratio:.3f} times the GGUF's, at most {bounds.most_ratio:g} is allowed.")


def _accuracy(
    figures: dict[str, Any],
    reasons: list[str],
    known: tuple[str | None, ...],
    judged: tuple[EngineOutput, EngineOutput],
    bounds: Bounds,
) -> None:
    asked = [index for index, answer in enumerate(known) if answer]
    if not asked:
        return
    shares = [sum(right(one.answers[i], known[i] or "") for i in asked) / len(asked) for one in judged]
    figures |= {"reference_accuracy": shares[0], "accuracy": shares[1], "accuracy_samples": len(asked)}
    if not shares[0] - shares[1] <= bounds.most_drop + 1e-9:
        reasons.append(
            f"{shares[1]:.1%} of the answers are right, {shares[0]:.1%} by the GGUF: "
            f"more than {bounds.most_drop:.1%} lost."
        )


def _llama(
    figures: dict[str, Any], reasons: list[str], reference: EngineOutput, llama: EngineOutput, bounds: Bounds
) -> None:
    same = agreement(reference.answers, llama.answers)
    figures["agreement_with_llama_cpp"] = same
    if not same >= bounds.least_agreement:
        reasons.append(
            f"{same:.1%} of the greedy answers are llama.cpp's, at least {bounds.least_agreement:.0%} are wanted: "
            "the unpacked weights or the tokenizer are not the GGUF's."
        )
    if llama.perplexity is not None and reference.perplexity is not None:
        figures["llama_cpp_perplexity"] = llama.perplexity
        apart = abs(reference.perplexity / llama.perplexity - 1)
        if not apart <= bounds.most_apart:
            reasons.append(
                f"perplexity is {apart:.1%} away from llama.cpp's on the GGUF, "
                f"at most {bounds.most_apart:.0%} is allowed."
            )
