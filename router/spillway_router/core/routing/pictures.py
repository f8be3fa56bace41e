"""How many prompt tokens a picture costs, by provider and model, and what other media are expected to cost: as data.

Bytes say nothing about the tokens of a picture: models scale it and count tiles or patches. The rules are those of the
providers' documentation. A picture whose size is not known costs the most that its rule allows, and one without a rule
more than any known model counts. Audio, documents and films have no bound here: money holds the whole context for them
(core/money/bounds.py). The expected tokens are for predictions only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Size = tuple[int, int]
"""Width and height in pixels."""
UNKNOWN_SIZE: Size = (0, 0)
MOST_TOKENS = 50_000
"""More than any provider counts for one picture. The largest known is gpt-4o-mini's: 2,833 + 8 tiles x 5,667."""
EXPECTED_TOKENS = 1_500
"""Tokens of a usual picture, for predictions: 1.15 megapixels at 750 pixels per token."""
MOST_EXPECTED_TOKENS = 16_384
"""Patches of the largest picture that engines take before they scale it (Qwen-VL's default)."""
PATCH = 28
"""Width and height of the patch that most vision models of engines turn into one token."""
MOST_TILES = 8

Medium = Literal["audio", "document", "video"]
BYTES_PER_TOKEN: dict[Medium, int] = {"audio": 800, "document": 17, "video": 800}
"""Bytes of a file per expected token. Compressed speech has 8 kB and about 10 tokens per second; a page of a PDF has
about 50 kB and 3,000 tokens as text and picture; a film has 250 kB and about 300 tokens per second."""
EXPECTED_BY_ADDRESS = 10_000
"""Expected tokens of a medium that is given by its address or id."""


@dataclass(frozen=True, slots=True)
class TileRule:
    """OpenAI's rule: scaled into 2,048 x 2,048, then to 768 on the short side, then counted in tiles of 512."""

    base: int
    per_tile: int

    def tokens(self, size: Size) -> int:
        """Return the tokens of a picture. A small picture counts as if it were enlarged, which is not documented."""
        if size == UNKNOWN_SIZE:
            return self.base + MOST_TILES * self.per_tile
        scale = min(1.0, 2048 / max(size))
        scale *= 768 / (min(size) * scale)
        tiles = math.ceil(size[0] * scale / 512) * math.ceil(size[1] * scale / 512)
        return self.base + min(MOST_TILES, tiles) * self.per_tile


@dataclass(frozen=True, slots=True)
class PatchRule:
    """One token per patch, after scaling to at most `most_side` pixels a side."""

    patch: int
    most_side: int

    def tokens(self, size: Size) -> int:
        """Return the tokens of a picture."""
        width, height = size if size != UNKNOWN_SIZE else (self.most_side, self.most_side)
        scale = min(1.0, self.most_side / max(width, height))
        return math.ceil(width * scale / self.patch) * math.ceil(height * scale / self.patch)


_RULES: tuple[tuple[str, str, TileRule | PatchRule | None], ...] = (
    # OpenAI's guide "Images and vision".
    ("openai", "gpt-4o-mini", TileRule(2_833, 5_667)),
    ("openai", "gpt-4o-audio", None),
    ("openai", "gpt-4o", TileRule(85, 170)),
    # Anthropic's guide "Vision".
    ("anthropic", "claude-", PatchRule(PATCH, 2_576)),
)
"""(provider, beginning of the model's name, rule). The first match counts."""


def most_tokens(provider: str, model: str, size: Size = UNKNOWN_SIZE) -> int:
    """Return the most prompt tokens that the provider may bill for one picture."""
    for name, prefix, rule in _RULES:
        if provider == name and model.startswith(prefix):
            return MOST_TOKENS if rule is None else rule.tokens(size)
    return MOST_TOKENS


def expected_tokens(size: Size) -> int:
    """Return the expected tokens of a picture, for predictions."""
    if size == UNKNOWN_SIZE:
        return EXPECTED_TOKENS
    return min(MOST_EXPECTED_TOKENS, math.ceil(size[0] / PATCH) * math.ceil(size[1] / PATCH))


def expected_media_tokens(medium: Medium, file_bytes: int) -> int:
    """Return the expected tokens of a file; 0 bytes stand for one by address."""
    return EXPECTED_BY_ADDRESS if file_bytes == 0 else 1 + file_bytes // BYTES_PER_TOKEN[medium]
