"""The quality gate compares a converted model with the GGUF that it came from. Pure: figures in, verdict out.

1. There are enough samples, of the kind of work that the GGUF itself does.
2. The perplexity of the known answers, candidate divided by reference, is at most `max_ratio`.
3. The share of known answers that are right drops by at most `max_drop` from reference to candidate.
4. Where llama.cpp judged the GGUF, its perplexity is within `max_deviation` of the unpacked weights', and at least
   `min_agreement` of the greedy answers are the same, which proves the unpacking (names, row order, tokenizer). The
   pipeline asks for no agreement where the GGUF is quantised.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of the gate; `max_drop`, `max_deviation` and `min_agreement` are shares.

    Where the GGUF's own perplexity exceeds `max_perplexity`, the samples are not the model's kind of work, so that they
    can't show a difference.
    """

    min_samples: int = 20
    max_perplexity: float = 100.0
    max_ratio: float = 1.10
    max_drop: float = 0.02
    max_deviation: float = 0.05
    min_agreement: float = 0.90


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """One engine's results on the samples: perplexity (None: no known answers) and its greedy answers in order."""

    perplexity: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether the model passed the gate, why not, and every figure."""

    verified: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]


def right(answer: str, expected: str) -> bool:
    """Return whether an answer is right: equal as JSON where both are JSON, else as text without outer blanks."""
    try:
        return bool(json.loads(answer) == json.loads(expected))
    except (ValueError, RecursionError):
        return answer.strip() == expected.strip()


def agreement(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Return the share of answers with the same text, 0 to 1; outer blanks don't count."""
    pairs = list(zip(first, second, strict=True))
    return sum(a.strip() == b.strip() for a, b in pairs) / len(pairs) if pairs else 0.0


def decide(
    expected: tuple[str | None, ...],
    reference: EngineOutput,
    candidate: EngineOutput,
    llama: EngineOutput | None,
    bounds: Bounds,
) -> GateVerdict:
    """Return the verdict; `expected` holds the right answer of each sample, or None."""
    figures: dict[str, Any] = {
        "samples": len(expected),
        "reference_perplexity": reference.perplexity,
        "perplexity": candidate.perplexity,
        "agreement_with_reference": agreement(reference.answers, candidate.answers),
        "llama_cpp": llama is not None,
    }
    reasons: list[str] = []
    if len(expected) < bounds.min_samples:
        reasons.append(f"only {len(expected)} samples, at least {bounds.min_samples} are needed.")
    _perplexity(figures, reasons, reference, candidate, bounds)
    _accuracy(figures, reasons, expected, (reference, candidate), bounds)
    if llama is not None:
        _llama(figures, reasons, reference, llama, bounds)
    return GateVerdict(not reasons, tuple(reasons), figures)


def _perplexity(
    figures: dict[str, Any], reasons: list[str], reference: EngineOutput, candidate: EngineOutput, bounds: Bounds
) -> None:
    if reference.perplexity is None or candidate.perplexity is None:
        reasons.append("no sample has a known answer, so there is no perplexity.")
        return
    if not reference.perplexity <= bounds.max_perplexity:
        reasons.append(
            f"the GGUF itself has perplexity {reference.perplexity:.4g} on the samples: they are not its kind of work, "
            "give suitable ones with --gate."
        )
    ratio = candidate.perplexity / reference.perplexity
    figures["perplexity_ratio"] = ratio
    # Written so that a NaN fails the check.
    if not ratio <= bounds.max_ratio:
        reasons.append(f"perplexity is {ratio:.3f} times the GGUF's, at most {bounds.max_ratio:g} is allowed.")


def _accuracy(
    figures: dict[str, Any],
    reasons: list[str],
    expected: tuple[str | None, ...],
    outputs: tuple[EngineOutput, EngineOutput],
    bounds: Bounds,
) -> None:
    answered = [index for index, answer in enumerate(expected) if answer]
    if not answered:
        return
    shares = [sum(right(output.answers[i], expected[i] or "") for i in answered) / len(answered) for output in outputs]
    figures |= {"reference_accuracy": shares[0], "accuracy": shares[1], "accuracy_samples": len(answered)}
    if not shares[0] - shares[1] <= bounds.max_drop + 1e-9:
        reasons.append(
            f"{shares[1]:.1%} of the answers are right, {shares[0]:.1%} by the GGUF: "
            f"more than {bounds.max_drop:.1%} lost."
        )


def _llama(
    figures: dict[str, Any], reasons: list[str], reference: EngineOutput, llama: EngineOutput, bounds: Bounds
) -> None:
    same = agreement(reference.answers, llama.answers)
    figures["agreement_with_llama_cpp"] = same
    if not same >= bounds.min_agreement:
        reasons.append(
            f"{same:.1%} of the greedy answers are llama.cpp's, at least {bounds.min_agreement:.0%} are needed: "
            "the unpacked weights or the tokenizer are not the GGUF's."
        )
    if llama.perplexity is not None and reference.perplexity is not None:
        figures["llama_cpp_perplexity"] = llama.perplexity
        deviation = abs(reference.perplexity / llama.perplexity - 1)
        if not deviation <= bounds.max_deviation:
            reasons.append(
                f"perplexity is {deviation:.1%} away from llama.cpp's on the GGUF, "
                f"at most {bounds.max_deviation:.0%} is allowed."
            )
