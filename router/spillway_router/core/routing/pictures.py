"""How many prompt tokens a picture costs: the documented maximum by provider and model, as data.

A picture's bytes say nothing about its tokens: models scale it and count tiles or patches.
"""

from __future__ import annotations

MOST_TOKENS = 50_000
"""More than any provider counts for one picture. The largest known is gpt-4o-mini's: 2,833 + 8 tiles x 5,667."""
EXPECTED_TOKENS = 1_500
"""Tokens of a usual picture, for predictions: 1.15 megapixels at 750 pixels per token."""
_MOST_BY_MODEL: tuple[tuple[str, str, int], ...] = (
    # OpenAI's guide "Images and vision": scaled into 2,048 x 2,048, then to 768 on the short side, which is at most 8
    # tiles of 512: 85 + 8 x 170.
    ("openai", "gpt-4o-mini", MOST_TOKENS),
    ("openai", "gpt-4o-audio", MOST_TOKENS),
    ("openai", "gpt-4o", 1_445),
    # Anthropic's guide "Vision": one token per patch of 28 x 28 pixels, after scaling to at most 2,576 pixels a side.
    ("anthropic", "claude-", 92 * 92),
)
"""(provider, beginning of the model's name, most tokens). The first match counts."""


def most_tokens(provider: str, model: str) -> int:
    """Return the most prompt tokens that the provider may bill for one picture."""
    for name, prefix, tokens in _MOST_BY_MODEL:
        if provider == name and model.startswith(prefix):
            return tokens
    return MOST_TOKENS
