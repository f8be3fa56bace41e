"""What a provider says that a call used: one reader for every dialect, for whole answers and for the events of streams.

A dialect differs in where the usage stands, in the names of its counts, and in what they include. Where counts
contradict each other, the reader keeps to these rules (docs/money.md):

    total           the output is never less than total - prompt: some count reasoning beside the completion
    parts           a part is never more than its whole: reasoning above the completion stands beside it
    several events  counts grow over a stream, so the largest of each is kept; those that only add up are added up
    no count        a missing output is total - prompt, or unknown; text beside an output of 0 makes it doubtful
    nonsense        a count that is negative, not a number or above MOST_TOKENS is as good as missing

Usage of which nobody knows all comes back with `certain=False`: a paid attempt then costs an estimate, and is marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import Usage, mode_of
from spillway_router.providers.billed import told_cost_nano, uses_in_output, uses_in_usage
from spillway_router.providers.usage_names import in_known_names

MOST_TOKENS = 10_000_000
"""More than any call can have: the longest context of a model."""
UsagePlace = Literal["x_groq", "choices", "timings"]
"""Members of an answer or event that hold usage: Groq's own, a choice (Moonshot), llama.cpp's counts of work."""
_LONGEST_NUMBER = 16
_LONGEST_NAME = 200


@fast_frozen(frozen=True, slots=True)
class UsageDialect:
    """How one provider tells usage, from catalogue.yaml.

    `elsewhere` names the members of an answer or event that may hold usage besides `usage`.
    `tells_cost`: `usage.cost` is the charge in USD. `tells_model`: `model` is the one that answered, whatever was asked
    for. `zero_prompt`: a prompt of 0 tokens means one that was cached, and no doubt.
    """

    elsewhere: tuple[UsagePlace, ...] = ()
    tells_cost: bool = False
    tells_model: bool = False
    zero_prompt: bool = False


PLAIN = UsageDialect()


def read_usage(
    usage: object,
    answer: Mapping[str, Any] | None = None,
    dialect: UsageDialect = PLAIN,
    *,
    generates: bool = True,
) -> Usage | None:
    """Return the usage in a usage object; None if it holds none.

    `answer`: what the usage stands in, which may tell the service, the model and the uses of tools beside it.
    `generates`: whether the call has an output at all, which embeddings have not.
    """
    if type(usage) is not dict:  # orjson makes dicts; isinstance with Mapping costs ten times as much
        return None
    if usage.keys() <= _PLAIN_USAGE and usage.get("prompt_tokens_details") is None and not dialect.tells_model:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")  # nearly every engine's answer
        if (
            type(prompt) is int
            and type(completion) is int
            and 0 < prompt <= MOST_TOKENS
            and 0 < completion <= MOST_TOKENS
            and usage.get("total_tokens", 0) == prompt + completion
            and (answer is None or (answer.get("service_tier") is None and answer.get("output") is None))
        ):
            return Usage(prompt, completion)
    usage = in_known_names(usage)
    iterations = usage.get("iterations")
    if type(iterations) is list:
        usage = _with_iterations(usage, iterations)
    return _Reading(usage, dialect, generates=generates).usage(usage, answer or {})


_PLAIN_USAGE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"})


def doubted(usage: Usage | None) -> Usage | None:
    """Return the usage of an answer with text: an output of 0 tokens can't be all of it."""
    if usage is None or usage.completion_tokens or usage.told_nano is not None or not usage.certain:
        return usage
    return replace(usage, certain=False)


class _Reading:
    """The counts of one usage object, put right one after the other."""

    __slots__ = (
        "cached", "certain", "completion", "dialect", "generates", "media", "prompt", "reasoning", "total", "written",
    )  # fmt: skip

    def __init__(self, usage: dict[str, Any], dialect: UsageDialect, *, generates: bool) -> None:
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        self.dialect, self.generates = dialect, generates
        self.certain = True
        self.prompt = _first(usage, _PROMPT)
        self.completion = _first(usage, _COMPLETION)
        self.total = _first(usage, ("total_tokens",))
        self.cached = max(_most(usage, _CACHED), _most(details, _CACHED))
        self.written = max(_most(usage, _WRITTEN), _most(details, _WRITTEN))
        self.reasoning = max(_most(usage, _REASONING), _most(output_details, _REASONING))
        self.media = _media(details, output_details)
        citations = _most(usage, _CITATIONS)
        if citations and self.prompt is not None:
            self.prompt += citations
            self.total = None if self.total is None else self.total + citations
        if self.prompt is None and "prompt_cache_hit_tokens" in usage and "prompt_cache_miss_tokens" in usage:
            self.prompt = self.cached + _most(usage, ("prompt_cache_miss_tokens",))
        self._count_prompt(usage)
        self._count_completion()

    def _count_prompt(self, usage: dict[str, Any]) -> None:
        """Make the prompt include what was read from and written to a cache."""
        beside = self.cached + self.written
        if self.prompt is None:
            if self.total is not None and self.completion is not None:
                self.prompt = max(0, self.total - self.completion)
            return
        if not beside:
            return
        if "input_tokens" in usage and any(name in usage for name in _ANTHROPIC):
            self.prompt += beside  # Anthropic's input_tokens leave them out
            return
        told_beside = self.total is not None and self.total >= self.prompt + beside + (self.completion or 0)
        if any(name in usage for name in _ANTHROPIC):
            # LiteLLM repeats Anthropic's names beside a prompt that includes them; other gateways hand both through.
            if self.prompt < beside or self.total == self.prompt + beside + (self.completion or 0):
                self.prompt += beside
        elif self.prompt < beside:
            if told_beside:
                self.prompt += beside
            else:  # a discount for more than there was
                self.certain = self.total is not None
                self.cached, self.written = 0, 0

    def _count_completion(self) -> None:
        """Make the output include all that was generated."""
        rest = None
        if self.total is not None and self.prompt is not None:
            rest = max(0, self.total - self.prompt)
        if self.completion is None:
            self.completion = rest
        elif rest is not None:
            self.completion = max(self.completion, rest)
        if self.completion is None:
            return
        if self.reasoning > self.completion:  # it can't be within, whatever the total leaves out
            self.completion += self.reasoning

    def usage(self, usage: dict[str, Any], answer: Mapping[str, Any]) -> Usage | None:
        """Return the usage as it is billed; None if nothing at all was told."""
        told_nano = told_cost_nano(usage) if self.dialect.tells_cost else None
        prompt, completion = self.prompt, self.completion
        if prompt is None and completion is None and told_nano is None:
            return None
        certain = self.certain and prompt is not None and (completion is not None or not self.generates)
        certain = certain and not usage.get(_OTHER_MODEL)
        if prompt == 0 and completion and not self.dialect.zero_prompt:
            certain = False
        output = answer.get("output")
        service = usage.get("service_tier") or answer.get("service_tier")
        return Usage(
            prompt_tokens=prompt or 0,
            completion_tokens=completion or 0,
            cached_tokens=self.cached,
            reasoning_tokens=min(self.reasoning, completion or 0),
            cache_write_tokens=self.written,
            cache_write_long_tokens=_written_for_an_hour(usage) if self.written else 0,
            service=mode_of(
                (
                    answer.get("service_tier") if service is None else service,
                    usage.get("speed"),
                    usage.get("inference_geo"),
                )
            ),
            calls=uses_in_output(output) if type(output) is list else uses_in_usage(usage),
            told_nano=told_nano,
            model=_model(answer) if self.dialect.tells_model else "",
            certain=certain or told_nano is not None,
            media=self.media,
        )


_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "cache_read_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
_REASONING = ("reasoning_tokens",)
_CITATIONS = ("citation_tokens",)
"""Perplexity's text of pages, which it bills as a prompt and counts neither in the prompt nor in the total."""
_MEDIA = (("audio_tokens", "audio_input", "audio_output"), ("image_tokens", "", "image_output"))
"""Names of counts in the details, with those of their prices in a prompt and in an output; empty: that of text."""
_ANTHROPIC = ("cache_read_input_tokens", "cache_creation_input_tokens")


_OF_ITERATIONS = ("input_tokens", "output_tokens", *_ANTHROPIC)
_OTHER_MODEL = "of_another_model"
"""A member that no provider sends: some of these tokens have the price of another model."""


def _with_iterations(usage: dict[str, Any], iterations: list[Any]) -> dict[str, Any]:
    """Return Anthropic's usage with all samplings of a call: its own counts leave out those of a compaction, and of the
    advisor, which is another model."""
    counted: dict[str, Any] = {**usage, "iterations": None}
    for name in _OF_ITERATIONS:
        total = 0
        for iteration in iterations:
            if type(iteration) is dict:
                total += _number(iteration.get(name)) or 0
        if total > (_number(usage.get(name)) or 0):
            counted[name] = total
    counted[_OTHER_MODEL] = any(type(iteration) is dict and iteration.get("model") for iteration in iterations)
    return counted


def _number(value: object) -> int | None:
    """Return a count of tokens; None for what is none. Some servers write counts as floats or as text."""
    if type(value) is int:
        return value if 0 <= value <= MOST_TOKENS else None
    if type(value) is str and len(value) <= _LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is float:
        return math.ceil(value) if 0 <= value <= MOST_TOKENS else None
    return None


def _first(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        count = _number(counts.get(name))
        if count is not None:
            return count
    return None


def _most(counts: object, names: tuple[str, ...]) -> int:
    """Return the largest of these counts; 0 if there is none."""
    if type(counts) is not dict:
        return 0
    most = 0
    for name in names:
        if name in counts:
            count = _number(counts[name])
            if count is not None and count > most:
                most = count
    return most


def _media(details: object, output_details: object) -> tuple[tuple[str, int], ...]:
    """Return the tokens that have prices of their own, by the names of these prices."""
    media = []
    for name, of_prompt, of_output in _MEDIA:
        if of_prompt and type(details) is dict and (count := _number(details.get(name))):
            media.append((of_prompt, count))
        if type(output_details) is dict and (count := _number(output_details.get(name))):
            media.append((of_output, count))
    return tuple(media)


def _written_for_an_hour(usage: Mapping[str, Any]) -> int:
    """Return the tokens written to a cache for an hour; `cache_creation` separates the lifetimes if there are two."""
    parts = usage.get("cache_creation")
    if parts is None:
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        parts = details.get("cache_creation_token_details") if type(details) is dict else None
    return _most(parts, ("ephemeral_1h_input_tokens",))


def _model(answer: Mapping[str, Any]) -> str:
    model = answer.get("model")
    return model if type(model) is str and len(model) <= _LONGEST_NAME and model.isprintable() else ""


def usage_elsewhere(body: Mapping[str, Any], dialect: UsageDialect) -> object:
    """Return the usage that a whole answer holds in another member than `usage`; None if it holds none."""
    for place in dialect.elsewhere:
        usage = usage_at(place, body)
        if usage is not None:
            return usage
    return None


def usage_at(place: UsagePlace, body: Mapping[str, Any]) -> object:
    """Return the usage that an answer or event holds in this member; None if it holds none."""
    member = body.get(place)
    if type(member) is list and member:
        member = member[0]
    if type(member) is not dict:
        return None
    return _of_timings(member) if place == "timings" else member.get("usage")


def _of_timings(timings: Mapping[str, Any]) -> dict[str, Any]:
    """Return llama.cpp's counts of work as usage: `prompt_n` leaves out what `cache_n` counts."""
    prompt, cached = _number(timings.get("prompt_n")), _number(timings.get("cache_n"))
    usage: dict[str, Any] = {"completion_tokens": timings.get("predicted_n")}
    if prompt is not None:
        usage["prompt_tokens"] = prompt + (cached or 0)
        usage["cached_tokens"] = cached
    return usage


class UsageTally:
    """The usage told over a stream. `add` takes each event that tells some; `usage` is what all of them say."""

    __slots__ = ("_additions", "_answer", "_dialect", "_fell", "_grew", "_sum", "_told", "is_latest")

    def __init__(self, dialect: UsageDialect) -> None:
        self._dialect = dialect
        self._told: dict[str, Any] | None = None
        self._answer: Mapping[str, Any] | None = None
        self.is_latest = False
        """Whether usage was told, and no content since."""
        self._sum = 0
        self._additions = 0
        """Later counts without a prompt: they may be additions instead of sums."""
        self._grew = False
        self._fell = False

    def add(self, usage: object, answer: Mapping[str, Any]) -> None:
        """Take the usage of one event, which stands in `answer`."""
        if type(usage) is not dict:
            return
        usage = in_known_names(usage)
        self.is_latest = True
        reported = self._told
        self._answer = answer if self._answer is None else _later(self._answer, answer)
        if reported is None:
            self._told = usage
            self._sum = _first(usage, _COMPLETION) or 0
            return
        completion = _first(usage, _COMPLETION)
        if completion:
            before = _first(reported, _COMPLETION) or 0
            self._sum += completion
            self._grew = self._grew or completion > before
            self._fell = self._fell or completion < before
            if not _first(usage, _PROMPT):
                self._additions += 1
        self._told = _merged(reported, usage)

    def usage(self) -> Usage | None:
        """Return what was told until now; None if it was nothing."""
        reported = self._told
        if reported is None:
            return None
        if self._additions > 1 and (self._fell or not self._grew):
            # Sums repeat the prompt and never get smaller.
            reported = {name: reported[name] for name in reported if name != "total_tokens"}
            reported["output_tokens" if "output_tokens" in reported else "completion_tokens"] = self._sum
        return read_usage(reported, self._answer, self._dialect)


def _later(before: Mapping[str, Any], answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the later of two events, with the service that either told."""
    service = before.get("service_tier")
    return answer if service is None or answer.get("service_tier") is not None else {**answer, "service_tier": service}


def _merged(reported: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return both usages as one: the larger of each count, and the later of everything else that is not null."""
    merged = dict(reported)
    for name, value in usage.items():
        before = merged.get(name)
        if value is None:
            continue
        if type(value) is dict and type(before) is dict:
            merged[name] = _merged(before, value)
            continue
        if type(value) is int and type(before) is int:
            merged[name] = value if value > before else before
            continue
        number, earlier = _number(value), _number(before)
        if earlier is None or (number is not None and number >= earlier):
            merged[name] = value
    return merged
