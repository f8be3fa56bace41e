"""One request of the past, as a ledger or a trace knows it: sizes, who asked and what became of it, but none of its
text."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.routing.model import Caller, Endpoint, PrivacyVerdict, RequestFacts
from spillway_router.core.routing.traits.conversation import Traits

BYTES_PER_TOKEN = 4
"""Bytes of English text per token, about. Ledgers and traces keep tokens, and the router predicts from bytes."""
_ANYBODY = Caller()
_MAY_LEAVE = PrivacyVerdict(may_leave=True)
_PRIVATE = PrivacyVerdict(may_leave=False, reasons=("recorded",))


@dataclass(frozen=True, slots=True)
class PastRequest:
    """A request that comes again in a replay.

    `number` rises in the order of arrival, and `arrival_s` is in epoch seconds, or in seconds since the start of a
    trace. `model` is the alias or the name that it asked for. `confidence` is that of its local answer, recorded or
    drawn; None without one. `local_right` and `cloud_right` say whether the answer of that side was right, as far as
    anybody judged it.
    """

    number: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """Of the prompt, at a cloud."""
    model: str = "auto"
    max_tokens: int | None = None
    caller: Caller = _ANYBODY
    endpoint: Endpoint = "chat"
    task: str = ""
    complexity: int | None = None
    language: str = ""
    private: bool = False
    document: bool = False
    confidence: float | None = None
    local_right: bool | None = None
    cloud_right: bool | None = None

    def right_at(self, *, local: bool) -> bool | None:
        """Return whether the answer of a side was right, as far as is known.

        Where the local answer was judged by a stronger one, that one is the measure of what is right.
        """
        if local:
            return self.local_right
        return True if self.cloud_right is None and self.local_right is not None else self.cloud_right

    def facts(self) -> RequestFacts:
        """Return what routing may know of it."""
        traits = None
        if self.complexity is not None:
            traits = Traits(self.task, self.complexity, (), self.language)  # type: ignore[arg-type]  # it is a Task
        return RequestFacts(
            request_id=str(self.number),
            endpoint=self.endpoint,
            model=self.model,
            stream=True,
            prompt_bytes=BYTES_PER_TOKEN * self.prompt_tokens,
            max_tokens=self.max_tokens,
            choices=1,
            needs=frozenset(),
            privacy=_PRIVATE if self.private else _MAY_LEAVE,
            caller=self.caller,
            task=self.task,
            document=self.document,
            traits=traits,
        )
