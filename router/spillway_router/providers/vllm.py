"""Local engines: vLLM and what answers like it. Their 503 is a full queue, which is load and not illness."""

from __future__ import annotations

from spillway_router.core.routing.model import OutcomeKind
from spillway_router.providers.openai_compatible import OpenAICompatible

QUEUE_FULL = 503


class LocalEngine(OpenAICompatible):
    """vLLM, SGLang, llama.cpp and Ollama: the OpenAI adapter with an engine's habits."""

    def kind(self, status: int) -> OutcomeKind:
        """A queue cap answers 503 (vLLM, `--max-num-queued-reqs`) or 429; both mean overflow."""
        if status in (QUEUE_FULL, 429):
            return "overloaded"
        return super().kind(status)
