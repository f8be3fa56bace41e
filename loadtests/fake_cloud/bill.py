"""What the fake cloud charged and which documents it saw: append-only, in memory, one line per billed request."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.fake_cloud.models import MODELS, CloudTokens


@dataclass(frozen=True, slots=True)
class CloudBillLine:
    """One billed request. `nano_usd` is an integer number of nano-dollars (1e-9 USD)."""

    request_id: str
    model: str
    sha256: str
    known: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    nano_usd: int


@dataclass(slots=True)
class CloudBill:
    """All billed requests, and the hash of every document that arrived, whether it was billed or refused."""

    lines: list[CloudBillLine] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)

    def charge(self, request_id: str, model: str, sha256: str, in_corpus: bool, tokens: CloudTokens) -> CloudBillLine:
        """Add one request to the bill. As with Groq, it is due in full as soon as the request is accepted."""
        cost = MODELS[model].nano_usd(tokens)
        line = CloudBillLine(
            request_id=request_id,
            model=model,
            sha256=sha256,
            known=in_corpus,
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            completion_tokens=tokens.completion,
            nano_usd=cost,
        )
        self.lines.append(line)
        return line

    def arrived(self, sha256: str, in_corpus: bool) -> None:
        """Record a document that reached this process, whatever becomes of the request."""
        self.seen[sha256] += 1
        if not in_corpus:
            self.unknown.add(sha256)

    def statement(self) -> dict[str, Any]:
        """Return the bill as JSON data: totals in tokens and nano-dollars, totals per model, and all lines."""
        by_model: dict[str, dict[str, int]] = {}
        for line in self.lines:
            sums = by_model.setdefault(line.model, dict.fromkeys(_SUMMED, 0))
            sums["requests"] += 1
            for name in _SUMMED[1:]:
                sums[name] += getattr(line, name)
        totals = {name: sum(sums[name] for sums in by_model.values()) for name in _SUMMED}
        return {
            **totals,
            "by_model": by_model,
            "refused": dict(self.refused),
            "lines": [asdict(line) for line in self.lines],
        }


_SUMMED = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "nano_usd")
