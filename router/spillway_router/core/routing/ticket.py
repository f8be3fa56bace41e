"""What the backlog keeps of one request."""

from __future__ import annotations


class Ticket:
    """One request in flight: tokens of its prompt and its KV cache; `work` is the prompt tokens ahead of it, its own
    included; the `..._before` are the backlog's sums at its admission and at its first token. Moments in seconds."""

    __slots__ = (
        "abandoned_before",
        "admitted_at",
        "expected_tpot_s",
        "first_token_at",
        "kv",
        "prefilled_before",
        "prompt",
        "work",
    )

    def __init__(self, prompt: int, kv: int, work: int, abandoned_before: int, now: float) -> None:
        self.prompt = prompt
        self.kv = kv
        self.work = work
        self.abandoned_before = abandoned_before
        self.admitted_at = now
        self.first_token_at: float | None = None
        self.expected_tpot_s = 0.0
        self.prefilled_before = 0
