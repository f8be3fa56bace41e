"""The settings of the policy's rules, and by what words requests are judged.

The docstrings of the classes are the descriptions in the JSON schema (`spillway schema`), so they address users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from spillway_router.config.part import Part, Timezone
from spillway_router.core.routing.model import Capability, Endpoint
from spillway_router.core.routing.rules import MINUTES_PER_DAY
from spillway_router.core.routing.traits.complexity import Factor
from spillway_router.core.routing.traits.conversation import Task
from spillway_router.core.routing.traits.reader import LONG_WORDS
from spillway_router.core.routing.traits.words import KINDS

_HOURS = re.compile(r"^([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$")


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2}$")]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])]
Endpoints = Annotated[
    tuple[Endpoint, ...], BeforeValidator(_listed, json_schema_input_type=Endpoint | tuple[Endpoint, ...])
]
Tasks = Annotated[tuple[Task, ...], BeforeValidator(_listed, json_schema_input_type=Task | tuple[Task, ...])]
Languages = Annotated[
    tuple[LanguageCode, ...], BeforeValidator(_listed, json_schema_input_type=LanguageCode | tuple[LanguageCode, ...])
]
Capabilities = Annotated[
    tuple[Capability, ...], BeforeValidator(_listed, json_schema_input_type=Capability | tuple[Capability, ...])
]
Days = Annotated[tuple[Day, ...], BeforeValidator(_listed, json_schema_input_type=Day | tuple[Day, ...])]
Weight = Annotated[int, Field(ge=-10, le=10)]


class RangePart(Part):
    """A range of whole numbers, both ends in it. One of the two is enough."""

    at_least: int | None = Field(None, ge=0)
    at_most: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}")
        return self


class ComplexityPart(RangePart):
    """A range of complexities, which are whole numbers from 0 to 10. One end is enough."""

    at_least: int | None = Field(None, ge=0, le=10)
    at_most: int | None = Field(None, ge=0, le=10)


class WhenPart(Part):
    """What a request must be like. All conditions must hold; one that is left out holds for every request.

    Where several values are given, any of them will do; of `needs`, all must be needed. `hours` are written like
    22:00-06:00, and `days` are those on which they begin. `budget_left_below` is the share that the tightest budget of
    the caller has left, and `waiting` the number of requests that wait for their first token at the local engine where
    fewest do. `gpu_utilisation_above` is the share of time in which NVML saw the GPU busy, for as long as
    overflow.gpu_utilisation.for_s says. `experiment` names arms, as EXPERIMENT/ARM. A rule with `confidence_below`
    holds for a local answer whose confidence is below it, once a better one is looked for, so it can only choose
    `escalate.to`.
    """

    alias: Names = ()
    endpoint: Endpoints = ()
    task: Tasks = ()
    complexity: ComplexityPart | None = None
    language: Languages = ()
    tier: Names = ()
    key: Names = ()
    needs: Capabilities = ()
    prompt_tokens: RangePart | None = None
    private: bool | None = None
    hours: Names = ()
    days: Days = ()
    budget_left_below: float | None = Field(None, gt=0, le=1)
    waiting: RangePart | None = None
    gpu_utilisation_above: float | None = Field(None, ge=0, lt=1)
    experiment: Names = ()
    confidence_below: float | None = Field(None, gt=0, le=1)

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            spans = _HOURS.match(text)
            if spans is None or max(minutes(text)) > MINUTES_PER_DAY or len(set(minutes(text))) == 1:
                raise ValueError(f'{text!r} is no time of day; write it in quotes like "22:00-06:00"')
        return value


def minutes(hours: str) -> tuple[int, int]:
    """Return the beginning and the end of a time of day, in minutes since midnight."""
    begins, ends = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    return begins, ends


class EscalationStepPart(Part):
    """A step of escalation whose answer is judged, too: if its confidence is below `threshold`, the next step is
    asked. That confidence is the conservative rule's, unless confidence.step_calibrations has a calibration."""

    backend: str = Field(min_length=1)
    threshold: float = Field(ge=0, le=1)


_NAME_TAG, _STEP_TAG = "(name)", "(step)"
Step = Annotated[
    Annotated[str, Tag(_NAME_TAG)] | Annotated[EscalationStepPart, Tag(_STEP_TAG)],
    Discriminator(lambda step: _STEP_TAG if isinstance(step, dict | EscalationStepPart) else _NAME_TAG),
]
Steps = tuple[Step, ...]


def step_names(steps: Steps) -> tuple[str, ...]:
    """Return the backends of the steps, in order."""
    return tuple(step if isinstance(step, str) else step.backend for step in steps)


def own_thresholds(steps: Steps) -> dict[str, float]:
    """Return the thresholds that the steps themselves name, by backend."""
    return {step.backend: step.threshold for step in steps if isinstance(step, EscalationStepPart)}


class EscalatePart(Part):
    """Where an unsure local answer goes, and below which confidence an answer is unsure. A value that is left out comes
    from `confidence`."""

    to: Steps | None = None
    threshold: float | None = Field(None, ge=0, le=1)

    @field_validator("to")
    @classmethod
    def _not_empty(cls, value: Steps | None) -> Steps | None:
        if value == ():
            raise ValueError("is empty; name a backend, or write escalate: never")
        return value


_PART_TAG, _NEVER_TAG = "(part)", "(never)"
Escalation = Annotated[
    Annotated[EscalatePart, Tag(_PART_TAG)] | Annotated[Literal["never"], Tag(_NEVER_TAG)],
    Discriminator(lambda value: _NEVER_TAG if isinstance(value, str) else _PART_TAG),
]


class EffectsPart(Part):
    """What becomes of requests: another chain, a preference, backends that are barred, another escalation."""

    chain: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    forbid: Names = ()
    escalate: Escalation | None = None

    @field_validator("escalate", mode="before")
    @classmethod
    def _escalate(cls, value: object) -> object:
        if value is None or value == "never" or isinstance(value, dict | EscalatePart):
            return value
        names = [name for name in _listed(value) if isinstance(name, str)]  # type: ignore[attr-defined]
        raise ValueError(f"write escalate: never, or escalate: {{to: [{', '.join(names) or 'BACKEND'}]}}")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.chain or self.prefer or self.forbid or self.escalate):
            raise ValueError("does nothing; add chain, prefer, forbid or escalate")
        return self


class PolicyRulePart(EffectsPart):
    """A rule: requests for which `when` holds get another chain of backends, prefer some, are barred from some, or are
    escalated in another way.

    Rules are read from top to bottom and all that hold apply. Of `chain`, `prefer` and `escalate` the first one
    counts; what rules `forbid` adds up. `chain` and `prefer` concern requests for an alias, and embeddings only where
    `when.endpoint` names them. `forbid` takes names of backends and of providers, and the words cloud and local.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9 _.-]{0,63}$")
    when: WhenPart = WhenPart()

    @model_validator(mode="after")
    def _confidence_chooses_steps(self) -> Self:
        if self.when.confidence_below is None:
            return self
        chooses = isinstance(self.escalate, EscalatePart) and self.escalate.to and self.escalate.threshold is None
        if not chooses or self.chain or self.prefer or self.forbid:
            raise ValueError(
                "when.confidence_below is known only of an answer, so write escalate: {to: [...]} and nothing else; "
                "from which confidence on answers are escalated is the threshold of another rule or of confidence"
            )
        return self


class PolicyPart(Part):
    """Rules that choose backends by what a request asks for, who asks, and when.

    The complexity of a request is the sum of the `weights` of what is found in its last message, from 0 to 10. A
    message of `long_words` words or more is long. With `learned_complexity`, a file written by
    `spillway calibrate-complexity`, it is ten times the probability that the local answer is not enough. `words` adds
    to the words by which a factor or a task is known; `languages` are those whose words are looked for. Hours are in
    `timezone`.
    """

    rules: tuple[PolicyRulePart, ...] = ()
    timezone: Timezone = "UTC"
    weights: Mapping[Factor, Weight] = {}
    languages: tuple[Literal["en", "de", "es", "fr"], ...] = ("en", "de", "es", "fr")
    words: Mapping[str, tuple[Annotated[str, Field(min_length=1, max_length=100)], ...]] = {}
    long_words: int = Field(LONG_WORDS, ge=1)
    learned_complexity: Path | None = None

    @field_validator("words")
    @classmethod
    def _words(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        if unknown := sorted(value.keys() - set(KINDS)):
            raise ValueError(f"no factor or task is called {unknown[0]!r}; use {', '.join(KINDS)}")
        return value

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, value: tuple[PolicyRulePart, ...]) -> tuple[PolicyRulePart, ...]:
        names = [rule.name for rule in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {twice[0]!r}; every rule needs a name of its own")
        return value
