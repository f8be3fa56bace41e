"""The names of OpenTelemetry's semantic conventions for generative AI, and what the router's values are called there.

They are those of release v0.1.0 of open-telemetry/semantic-conventions-genai, the first one apart from the general
conventions (Development status: names may still change), read in November 2026. Attributes of the router's own begin
with `spillway.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spillway_router.core.routing.model import Endpoint

VERSION: Final = "semantic-conventions-genai v0.1.0"

OPERATIONS: Final[Mapping[Endpoint, str]] = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "chat",
    "messages": "chat",
}
"""`gen_ai.operation.name` of each endpoint."""
ROUTES: Final[Mapping[Endpoint, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
PROVIDERS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "groq": "groq",
    "openai": "openai",
}
"""`gen_ai.provider.name` of the providers that have a well-known one. Others go by the catalogue's name."""

INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
"""What the conventions keep for operations that are no inference: embeddings here."""
FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.client.inference.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.client.inference.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.client.inference.usage.reasoning.output_tokens"
COST: Final = "spillway.cost"
REQUEST_DURATION: Final = "spillway.request.duration"
SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""The bucket bounds that the conventions advise for durations."""
