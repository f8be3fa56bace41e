"""The settings of confidence: how sure a local answer must be, how that is found out, and what was calibrated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from spillway_router.config.settings_base import Part
from spillway_router.core.confidence.calibration import ANY, Fingerprint


class FingerprintPart(Part):
    """What a local engine serves, for calibrations that hold for nothing else: marks of weights and chat template as
    `spillway check` tells them, and the quantisation. Left out: not known (`spillway up` knows all three)."""

    weights: str | None = Field(None, min_length=1)
    template: str | None = Field(None, min_length=1)
    quantisation: str | None = Field(None, min_length=1)

    def fingerprint(self) -> Fingerprint:
        """The same with "*" for what is not known."""
        return Fingerprint(self.weights or ANY, self.template or ANY, self.quantisation or ANY)


class RulePart(Part):
    """What a value of a JSON answer must keep to: a pattern for all of it, bounds of a number, or that it stands in the
    request. `field`: a JSON pointer. A value that is null or absent breaks no rule."""

    field: str = Field(pattern=r"^(/[^/]*)+$")
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    in_source: bool = False

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


class SelfCheckPart(Part):
    """A second look at whole answers whose calibrated confidence lies within `band` of the threshold: the engine is
    asked about its own answer. `ask`: p_true (is it right? one token), stated (how sure, 0 to 100?), or none.

    It counts through a calibration that was made with it. `question`: "" for the usual one. `words`: the answer that
    means right, and the one that means wrong. `timeout_ms`: longest wait, within what the latency promise leaves.
    """

    ask: Literal["none", "p_true", "stated"] = "none"
    band: float = Field(0.1, gt=0, le=1)
    timeout_ms: float = Field(500, gt=0, le=60_000)
    question: str = Field("", max_length=2000)
    words: tuple[str, str] = ("True", "False")

    @field_validator("words")
    @classmethod
    def _words(cls, value: tuple[str, str]) -> tuple[str, str]:
        one, other = (word.strip().casefold() for word in value)
        if not one or not other or one[0] == other[0]:
            raise ValueError("need different first letters, as one token may hold no more; write such as [True, False]")
        return value


class ConfidencePart(Part):
    """Local answers below the threshold go to the first of `escalate_to` that may have them. Empty: no escalation.

    `calibration`: a file of `spillway calibrate`; its certified threshold counts unless `threshold` is set.
    `hold_tokens`: how many tokens of a stream are held back before it is committed; auto: as many as the TTFT promise
    leaves time for. `audit_share`: share of local answers that the first of `escalate_to` that may have them (of
    documents, the first of `documents.external`) answers again, to see whether confidence keeps its word.
    `top_logprobs`: alternatives per token asked of the engine; a calibration's own number goes first. `rules`: a JSON
    answer with a value that breaks one is not sure, whatever its log-probabilities. `self_check`: a second look.
    """

    threshold: float = Field(0.8, ge=0, le=1)
    escalate_to: tuple[str, ...] = ()
    calibration: Path | None = None
    hold_tokens: Annotated[int, Field(ge=0, le=512)] | Literal["auto"] = "auto"
    audit_share: float = Field(0.0, ge=0, le=1)
    top_logprobs: int = Field(2, ge=2, le=5)
    rules: tuple[RulePart, ...] = ()
    self_check: SelfCheckPart = SelfCheckPart()
