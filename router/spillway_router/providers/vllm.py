"""Local engines: vLLM and the engines that answer like it. Their 503 is a full queue, which means load, not failure."""

from __future__ import annotations

from spillway_router.core.routing.model import OutcomeKind
from spillway_router.providers.openai_compatible import OpenAICompatible

QUEUE_FULL = 503


class LocalEngine(OpenAICompatible):
    """The OpenAI adapter with the habits of vLLM, SGLang, llama.cpp and Ollama."""

    def kind(self, status: int) -> OutcomeKind:
        """Return the outcome kind; a full queue answers 503 (vLLM, `--max-num-queued-reqs`) or 429, and both mean
        overflow."""
        if status in (QUEUE_FULL, 429):
            return "overloaded"
        return super().kind(status)
