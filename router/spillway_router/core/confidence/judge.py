"""Judge an answer: from its tokens to a confidence, with scores, validators, and a calibration if there is one.

With a calibration that holds for the task, the confidence is its calibrated P(right). Without one, conservative rules
apply:

1. A fatal flaw (empty, json, schema, rule) gives 0.
2. No valid signal gives None, which is not the same as being sure.
3. A JSON answer or tool call gets the probability of its least sure required value, exp(sum of its tokens' log-probs).
   All values must be right for the document to be right, so the least of them is an upper bound that needs no labels.
4. Any other answer gets the geometric mean probability of its least sure window of WINDOW tokens (of all tokens, if
   there are fewer).

Rules 3 and 4 order answers well but promise no probability: `ConfidenceVerdict.calibrated` is False, and a threshold on
them is a guess. `spillway calibrate` turns labelled answers into a promise.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spillway_router.core.confidence.calibration import Calibration, Stage
from spillway_router.core.confidence.json_values import (
    Value,
    is_required,
    json_start,
    required_pointers,
    scalars,
    tokens_by_value,
)
from spillway_router.core.confidence.scores import (
    LEAST,
    SILENT_SHARE,
    WINDOW,
    Token,
    informative,
    margin,
    signal_flaw,
    token_scores,
    with_alternatives,
)
from spillway_router.core.confidence.validators import FATAL, PromptSource, ValueRule, broken_rules, matches_schema
from spillway_router.core.frozen import fast_frozen

THINK_END = "</think>"


@fast_frozen(frozen=True, slots=True)
class AnswerContext:
    """What scoring may know of the request that an answer belongs to. It is never stored.

    `schema`: the JSON schema of response_format. `source`: the prompt's text, "" if unknown. `task`: the task that a
    calibration is made for, such as "json", "chat", "code", or the name of a document schema. `tools`: whether the
    answer consists of tool calls. `rules`: those of the configuration.
    """

    schema: Mapping[str, Any] | None = None
    source: str = ""
    task: str = ""
    tools: bool = False
    rules: tuple[ValueRule, ...] = ()


@fast_frozen(frozen=True, slots=True)
class ConfidenceVerdict:
    """The verdict on an answer.

    `confidence`: P(right) in [0, 1]; None without a valid signal. `calibrated`: False if a conservative rule gave the
    confidence. `scores`: every score by name; more is surer. `fields`: JSON pointer -> confidence of that value, {} for
    an answer that is not JSON. `flaws`: the names of the validators that failed.
    """

    confidence: float | None
    calibrated: bool
    scores: Mapping[str, float]
    fields: Mapping[str, float]
    flaws: tuple[str, ...]


@fast_frozen(frozen=True, slots=True)
class _Json:
    """The scalars of a JSON answer, and for each of them the tokens that wrote it."""

    values: tuple[Value, ...]
    tokens: tuple[tuple[Token, ...], ...]


def judge(
    tokens: Sequence[Token], text: str, context: AnswerContext, calibration: Calibration | None
) -> ConfidenceVerdict:
    """Return the verdict on one whole answer. O(len(tokens)).

    `tokens`: everything that the engine generated, including reasoning. `text`: the answer as the client sees it (for
    tool calls, their arguments).
    """
    if calibration is not None and calibration.alternatives is not None:
        tokens = with_alternatives(tokens, calibration.alternatives)
    reasoning, answer = _split_reasoning(tokens, text)
    chosen = informative(answer)
    silent = signal_flaw(chosen) is not None
    source = PromptSource(context.source)
    parsed = _read_json(answer, text, context)
    flaws = _flaws(text, parsed, context, source)
    scores = {} if silent else token_scores(chosen)
    fields: dict[str, float] = {}
    if scores:
        scores["length"] = -math.log(len(answer))
        scores.update(_reasoning_scores(reasoning))
    if parsed is not None and scores:
        by_value = _scores_by_value(parsed, source, context)
        scores.update(_document_scores(by_value, parsed, context))
        usable = calibration if calibration is not None and calibration.holds_for_task(context.task) else None
        fields = {
            pointer: _field_confidence(s, None if usable is None else usable.value_stage(pointer))
            for pointer, s in by_value.items()
            if s
        }
    confidence, calibrated = _confidence(scores, flaws, context.task, calibration)
    return ConfidenceVerdict(confidence=confidence, calibrated=calibrated, scores=scores, fields=fields, flaws=flaws)


def with_score(
    verdict: ConfidenceVerdict, name: str, score: float, task: str, calibration: Calibration | None
) -> ConfidenceVerdict:
    """Return the verdict with one more score, which counts only if the calibration was fitted with it."""
    scores = {**verdict.scores, name: score}
    confidence, calibrated = _confidence(scores, verdict.flaws, task, calibration)
    return replace(verdict, scores=scores, confidence=confidence, calibrated=calibrated)


def value_scores(tokens: Sequence[Token], text: str, context: AnswerContext) -> dict[str, dict[str, float]]:
    """Return JSON pointer -> scores of that value, on which a value's calibration is fitted; {} for other answers."""
    _, answer = _split_reasoning(tokens, text)
    parsed = _read_json(answer, text, context)
    if parsed is None:
        return {}
    source = PromptSource(context.source)
    return _scores_by_value(parsed, source, context)


def _scores_by_value(parsed: _Json, source: PromptSource, context: AnswerContext) -> dict[str, dict[str, float]]:
    pairs = zip(parsed.values, parsed.tokens, strict=True)
    return {value.pointer: _value_scores(value, tokens, source, context) for value, tokens in pairs}


def _confidence(
    scores: Mapping[str, float], flaws: tuple[str, ...], task: str, calibration: Calibration | None
) -> tuple[float | None, bool]:
    usable = calibration is not None and calibration.holds_for_task(task)
    if not FATAL.isdisjoint(flaws):
        return 0.0, usable
    if not scores:
        return None, False
    if calibration is not None and usable:
        return calibration.answer.probability(scores), True
    return math.exp(scores.get("value_min", scores["window_low"])), False


def _split_reasoning(tokens: Sequence[Token], text: str) -> tuple[Sequence[Token], Sequence[Token]]:
    """Return the tokens of the reasoning and those of the answer.

    The answer begins after the end-of-thinking mark or, if the engine removed the reasoning from the text, where the
    text begins.
    """
    raw = "".join(token.text for token in tokens)
    mark = raw.rfind(THINK_END)
    begin = mark + len(THINK_END) if mark >= 0 else raw.rfind(text) if text else 0
    if begin <= 0:
        return (), tokens
    at = 0
    for index, token in enumerate(tokens):
        if at >= begin:
            return tokens[:index], tokens[index:]
        at += len(token.text)
    return (), tokens


def _read_json(answer: Sequence[Token], text: str, context: AnswerContext) -> _Json | None:
    """Return the scalars of a JSON answer, read from the tokens' own text so that their places are exact; None if it is
    not JSON.

    Plain text that merely contains a brace is not JSON: without a schema or tools the text must begin with one.
    """
    raw = "".join(token.text for token in answer)
    if context.schema is None and not context.tools and not text.lstrip().startswith(("{", "[")):
        return None
    start = json_start(raw)
    values: list[Value] = []
    while start >= 0:
        try:
            more, end = scalars(raw, start)
        except (ValueError, RecursionError):
            break
        values.extend(more)
        if not context.tools:
            break
        following = json_start(raw[end:])  # several tool calls follow each other
        start = -1 if following < 0 else end + following
    if not values:
        return None
    return _Json(tuple(values), tuple(tuple(tokens) for tokens in tokens_by_value(values, answer)))


def _flaws(text: str, parsed: _Json | None, context: AnswerContext, source: PromptSource) -> tuple[str, ...]:
    if not text.strip() and not context.tools:
        return ("empty",)
    flaws: list[str] = []
    if context.schema is not None and not context.tools:
        try:
            whole = json.loads(text[text.rfind(THINK_END) + len(THINK_END) :] if THINK_END in text else text)
        except (ValueError, RecursionError):
            return ("json",)
        if not matches_schema(whole, context.schema):
            flaws.append("schema")
    if parsed is None:
        return tuple(flaws)
    numbers = [v.value for v in parsed.values if isinstance(v.value, int | float)]
    if context.source and not context.tools and any(source.contains(number) is False for number in numbers):
        flaws.append("not_in_source")
    if broken_rules(context.rules, parsed.values, source):
        flaws.append("rule")
    return tuple(flaws)


def _reasoning_scores(reasoning: Sequence[Token]) -> dict[str, float]:
    free = informative(reasoning)
    if signal_flaw(free) is not None:
        return {}
    return {f"reasoning_{name}": score for name, score in token_scores(free).items() if name in ("mean", "window_low")}


def _value_scores(
    value: Value, tokens: Sequence[Token], source: PromptSource, context: AnswerContext
) -> dict[str, float]:
    """Return the scores of one value from the tokens that wrote it; {} if a grammar wrote all of it."""
    free = informative(tokens)
    if not free:
        return {}
    chosen = [max(LEAST, min(0.0, token.logprob)) for token in free]
    scores = {"sum": math.fsum(chosen), "min": min(chosen), "mean": math.fsum(chosen) / len(chosen)}
    if all(len(token.top) > 1 for token in free):
        scores["margin_first"] = margin(free[0])
        scores["margin_min"] = min(margin(token) for token in free)
    if context.source:
        contained = source.contains(value.value)
        scores["in_source"] = 0.5 if contained is None else float(contained)
    scores["filled"] = float(value.value is not None)
    return scores


def _document_scores(
    by_value: Mapping[str, Mapping[str, float]], parsed: _Json, context: AnswerContext
) -> dict[str, float]:
    """Return the document's scores from those of its values: the least over the required fields, and means."""
    required = required_pointers(context.schema) if not context.tools else frozenset()
    counted = [scores for pointer, scores in by_value.items() if scores and is_required(pointer, required)]
    if not counted:
        return {}
    document = {
        "value_min": min(scores["sum"] for scores in counted),
        "value_token_min": min(scores["min"] for scores in counted),
        "value_sum": math.fsum(scores["sum"] for scores in counted),
        "value_mean": math.fsum(scores["mean"] for scores in counted) / len(counted),
        "filled": math.fsum(v.value is not None for v in parsed.values) / len(parsed.values),
    }
    for name in ("margin_first", "margin_min"):
        if all(name in scores for scores in counted):
            document[f"value_{name}"] = min(scores[name] for scores in counted)
    in_source = [scores["in_source"] for scores in counted if scores.get("in_source", 0.5) != 0.5]
    if in_source:
        document["in_source"] = math.fsum(in_source) / len(in_source)
    return document


def _field_confidence(scores: Mapping[str, float], stage: Stage | None) -> float:
    return math.exp(scores["sum"]) if stage is None else stage.probability(scores)


class PrefixScore:
    """The scores of a stream's first tokens, updated in O(1) per token.

    The same traps are avoided as for whole answers. Without a calibration, the conservative rule 4 applies.
    """

    __slots__ = ("_chosen", "_free", "_least", "_margin_least", "_margins", "_recent", "_recent_sum", "_sound", "_sum",
                 "_window_low", "_zeros", "tokens")  # fmt: skip

    def __init__(self) -> None:
        self.tokens = 0
        """Number of tokens so far, including forced ones."""
        self._free = self._zeros = self._margins = 0
        self._sum = self._recent_sum = self._margin_least = self._chosen = 0.0
        self._least = 0.0
        self._window_low = 0.0
        self._recent: deque[float] = deque()
        self._sound = True

    def add(self, token: Token) -> None:
        """Add the next token of the stream."""
        self.tokens += 1
        if token.forced:
            return
        logprob = token.logprob
        if not math.isfinite(logprob):
            self._sound = False
            return
        self._free += 1
        self._zeros += logprob == 0.0
        logprob = max(LEAST, min(0.0, logprob))
        self._sum += logprob
        self._least = min(self._least, logprob)
        self._recent.append(logprob)
        self._recent_sum += logprob
        if len(self._recent) > WINDOW:
            self._recent_sum -= self._recent.popleft()
        mean = self._recent_sum / len(self._recent)
        # Until the window is full, the mean of all tokens so far is the only window.
        self._window_low = mean if self._free <= WINDOW else min(self._window_low, mean)
        if len(token.top) > 1:
            gap = margin(token)
            self._margin_least = gap if self._margins == 0 else min(self._margin_least, gap)
            self._margins += 1
            self._chosen += gap

    def scores(self) -> dict[str, float]:
        """Return the scores of the prefix by name, as `token_scores` names them; {} without a valid signal."""
        if not self._sound or not self._free or self._zeros > SILENT_SHARE * self._free:
            return {}
        scores = {
            "sum": self._sum,
            "mean": self._sum / self._free,
            "min": self._least,
            "window_low": min(0.0, self._window_low),
        }
        if self._margins == self._free:
            scores["margin_mean"] = self._chosen / self._free
            scores["margin_min"] = self._margin_least
        return scores

    def confidence(self, calibration: Calibration | None) -> float | None:
        """Return P(right) of the whole answer as far as these tokens show; None without a valid signal."""
        scores = self.scores()
        if not scores:
            return None
        stage = None if calibration is None else calibration.stage_after(self.tokens)
        return math.exp(scores["window_low"]) if stage is None else stage.probability(scores)
