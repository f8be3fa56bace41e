"""From an answer's tokens to a confidence: scores, validators, and a calibration where there is one.

With a calibration that holds for the task, confidence is its calibrated P(right). Without one, a conservative rule:

1. A fatal flaw (empty, json, schema, rule) is 0.
2. No valid signal is None, which is not the same as being sure.
3. A JSON answer or tool call: the probability of its least sure required value, exp(sum of its tokens' log-probs).
   All values must be right for the document to be right, so the least of them is an upper bound that needs no labels.
4. Any other answer: the geometric mean probability of its least sure stretch of WINDOW tokens (of all, if shorter).

Rule 3 and 4 order answers well but promise no probability: `ConfidenceVerdict.calibrated` is False, and a threshold
on them is a guess. `spillway calibrate` turns labelled answers into a promise.
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
    """What scoring may know of the question; never stored.

    `schema`: JSON schema of response_format. `source`: the prompt's text, "" if unknown. `task`: calibration key, such
    as "json", "chat", "code", or a document schema's name. `tools`: the answer is tool calls. `rules`: the user's.
    """

    schema: Mapping[str, Any] | None = None
    source: str = ""
    task: str = ""
    tools: bool = False
    rules: tuple[ValueRule, ...] = ()


@fast_frozen(frozen=True, slots=True)
class ConfidenceVerdict:
    """What is thought of an answer.

    `confidence`: P(right) in [0, 1]; None: no valid signal. `calibrated`: False where the conservative rule gave it.
    `scores`: every single score by name, more is surer. `fields`: JSON pointer -> confidence of that value, {} for
    answers that are no JSON. `flaws`: the validators that failed.
    """

    confidence: float | None
    calibrated: bool
    scores: Mapping[str, float]
    fields: Mapping[str, float]
    flaws: tuple[str, ...]


@fast_frozen(frozen=True, slots=True)
class _Json:
    """The scalars of a JSON answer with the tokens that wrote each."""

    values: tuple[Value, ...]
    owned: tuple[tuple[Token, ...], ...]


def judge(
    tokens: Sequence[Token], text: str, asked: AnswerContext, calibration: Calibration | None
) -> ConfidenceVerdict:
    """The verdict on one whole answer. `tokens`: all that the engine generated, reasoning included; `text`: the
    answer as the client sees it (for tool calls, their arguments). O(len(tokens))."""
    if calibration is not None and calibration.alternatives is not None:
        tokens = with_alternatives(tokens, calibration.alternatives)
    thoughts, answer = _without_reasoning(tokens, text)
    free = informative(answer)
    silent = signal_flaw(free) is not None
    source = PromptSource(asked.source)
    parsed = _read_json(answer, text, asked)
    flaws = _flaws(text, parsed, asked, source)
    scores = {} if silent else token_scores(free)
    fields: dict[str, float] = {}
    if scores:
        scores["length"] = -math.log(len(answer))
        scores.update(_thought_scores(thoughts))
    if parsed is not None and scores:
        own = {v.pointer: _value_scores(v, t, source, asked) for v, t in zip(parsed.values, parsed.owned, strict=True)}
        scores.update(_document_scores(own, parsed, asked))
        stage = calibration.value if calibration is not None and calibration.holds_for_task(asked.task) else None
        fields = {pointer: _field_confidence(s, stage) for pointer, s in own.items() if s}
    confidence, calibrated = _confidence(scores, flaws, asked.task, calibration)
    return ConfidenceVerdict(confidence, calibrated, scores, fields, flaws)


def with_score(
    verdict: ConfidenceVerdict, name: str, score: float, task: str, calibration: Calibration | None
) -> ConfidenceVerdict:
    """The verdict with one more score, which came later: it counts where the calibration knows it."""
    scores = {**verdict.scores, name: score}
    confidence, calibrated = _confidence(scores, verdict.flaws, task, calibration)
    return replace(verdict, scores=scores, confidence=confidence, calibrated=calibrated)


def value_scores(tokens: Sequence[Token], text: str, asked: AnswerContext) -> dict[str, dict[str, float]]:
    """JSON pointer -> scores of that value; {} where the answer is no JSON. What a value's calibration is fitted on."""
    _, answer = _without_reasoning(tokens, text)
    parsed = _read_json(answer, text, asked)
    if parsed is None:
        return {}
    source = PromptSource(asked.source)
    return {v.pointer: _value_scores(v, t, source, asked) for v, t in zip(parsed.values, parsed.owned, strict=True)}


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


def _without_reasoning(tokens: Sequence[Token], text: str) -> tuple[Sequence[Token], Sequence[Token]]:
    """Tokens of the reasoning, and those of the answer: all behind the end of thinking, which is where a thinking mark
    ends or, if the engine took the thoughts out of the text, where the text begins."""
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


def _read_json(answer: Sequence[Token], text: str, asked: AnswerContext) -> _Json | None:
    """The answer's scalars, read from the tokens' own text so that their places are exact; None where it is no JSON.

    Plain text that merely holds a brace somewhere is no JSON: without a schema or tools it must begin with one.
    """
    raw = "".join(token.text for token in answer)
    if asked.schema is None and not asked.tools and not text.lstrip().startswith(("{", "[")):
        return None
    start = json_start(raw)
    found: list[Value] = []
    while start >= 0:
        try:
            more, end = scalars(raw, start)
        except (ValueError, RecursionError):
            break
        found.extend(more)
        if not asked.tools:
            break
        following = json_start(raw[end:])  # several tool calls stand one behind the other
        start = -1 if following < 0 else end + following
    if not found:
        return None
    return _Json(tuple(found), tuple(tuple(owned) for owned in tokens_by_value(found, answer)))


def _flaws(text: str, parsed: _Json | None, asked: AnswerContext, source: PromptSource) -> tuple[str, ...]:
    if not text.strip() and not asked.tools:
        return ("empty",)
    found: list[str] = []
    if asked.schema is not None and not asked.tools:
        try:
            whole = json.loads(text[text.rfind(THINK_END) + len(THINK_END) :] if THINK_END in text else text)
        except (ValueError, RecursionError):
            return ("json",)
        if not matches_schema(whole, asked.schema):
            found.append("schema")
    if parsed is None:
        return tuple(found)
    numbers = [v.value for v in parsed.values if isinstance(v.value, int | float)]
    if asked.source and not asked.tools and any(source.holds(number) is False for number in numbers):
        found.append("not_in_source")
    if broken_rules(asked.rules, parsed.values, source):
        found.append("rule")
    return tuple(found)


def _thought_scores(thoughts: Sequence[Token]) -> dict[str, float]:
    free = informative(thoughts)
    if signal_flaw(free) is not None:
        return {}
    return {f"reasoning_{name}": score for name, score in token_scores(free).items() if name in ("mean", "window_low")}


def _value_scores(value: Value, owned: Sequence[Token], source: PromptSource, asked: AnswerContext) -> dict[str, float]:
    """Scores of one value from the tokens that wrote it; {} where a grammar wrote all of it."""
    free = informative(owned)
    if not free:
        return {}
    chosen = [max(LEAST, min(0.0, token.logprob)) for token in free]
    scores = {"sum": math.fsum(chosen), "min": min(chosen), "mean": math.fsum(chosen) / len(chosen)}
    if all(len(token.top) > 1 for token in free):
        scores["margin_first"] = margin(free[0])
        scores["margin_min"] = min(margin(token) for token in free)
    if asked.source:
        held = source.holds(value.value)
        scores["in_source"] = 0.5 if held is None else float(held)
    scores["filled"] = float(value.value is not None)
    return scores


def _document_scores(own: Mapping[str, Mapping[str, float]], parsed: _Json, asked: AnswerContext) -> dict[str, float]:
    """The document's scores from its values': the least over the required fields, and means."""
    required = required_pointers(asked.schema) if not asked.tools else frozenset()
    counted = [scores for pointer, scores in own.items() if scores and is_required(pointer, required)]
    if not counted:
        return {}
    found = {
        "value_min": min(scores["sum"] for scores in counted),
        "value_token_min": min(scores["min"] for scores in counted),
        "value_sum": math.fsum(scores["sum"] for scores in counted),
        "value_mean": math.fsum(scores["mean"] for scores in counted) / len(counted),
        "filled": math.fsum(v.value is not None for v in parsed.values) / len(parsed.values),
    }
    for name in ("margin_first", "margin_min"):
        if all(name in scores for scores in counted):
            found[f"value_{name}"] = min(scores[name] for scores in counted)
    held = [scores["in_source"] for scores in counted if scores.get("in_source", 0.5) != 0.5]
    if held:
        found["in_source"] = math.fsum(held) / len(held)
    return found


def _field_confidence(scores: Mapping[str, float], stage: Stage | None) -> float:
    return math.exp(scores["sum"]) if stage is None else stage.probability(scores)


class PrefixScore:
    """The first tokens of a stream, scored as they come: O(1) per token. The same traps are kept out as for whole
    answers; without a calibration the conservative rule 4 holds."""

    __slots__ = ("_chosen", "_free", "_least", "_margin_least", "_margins", "_recent", "_recent_sum", "_sound", "_sum",
                 "_window_low", "_zeros", "tokens")  # fmt: skip

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens that came, forced ones included."""
        self._free = self._zeros = self._margins = 0
        self._sum = self._recent_sum = self._margin_least = self._chosen = 0.0
        self._least = 0.0
        self._window_low = 0.0
        self._recent: deque[float] = deque()
        self._sound = True

    def add(self, token: Token) -> None:
        """One more token of the stream."""
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
        # While the window fills, the mean of all tokens so far is the only window.
        self._window_low = mean if self._free <= WINDOW else min(self._window_low, mean)
        if len(token.top) > 1:
            gap = margin(token)
            self._margin_least = gap if self._margins == 0 else min(self._margin_least, gap)
            self._margins += 1
            self._chosen += gap

    def scores(self) -> dict[str, float]:
        """Scores of the prefix by name, as `token_scores` names them; {} where there is no valid signal."""
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
        """P(right) of the whole answer as far as these tokens tell; None where there is no valid signal."""
        scores = self.scores()
        if not scores:
            return None
        stage = None if calibration is None else calibration.stage_after(self.tokens)
        return math.exp(scores["window_low"]) if stage is None else stage.probability(scores)
