"""Read tokens and their log-probabilities from OpenAI choices: chat and completions, whole answers and stream
deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.confidence.scores import FORCED, Token
from spillway_router.providers.streams import valid_text

_NOT_A_NUMBER = float("nan")


def tokens_of_choice(choice: Mapping[str, Any]) -> tuple[Token, ...]:
    """Return the tokens of one choice of an answer or a stream delta; () if the engine sent none.

    An unreadable log-probability becomes NaN, which scoring treats as "no signal".
    """
    logprobs = choice.get("logprobs")
    if type(logprobs) is not dict:  # orjson makes dicts; isinstance with Mapping costs ten times as much
        return ()
    content = logprobs.get("content")
    if type(content) is list:
        return (_chat_token(content[0]),) if len(content) == 1 else tuple([_chat_token(item) for item in content])
    values = logprobs.get("token_logprobs")
    return _flat_tokens(logprobs, values) if isinstance(values, list) else ()


def answer_text(choice: Mapping[str, Any]) -> str:
    """Return the answer as the client sees it: content, text, or the arguments of its tool calls, one per line."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        text = choice.get("text")
        return valid_text(text) if isinstance(text, str) else ""
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return "\n".join(_arguments(call) for call in calls)
    content = message.get("content")
    return valid_text(content) if isinstance(content, str) else ""


def first_alternatives(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the first token of a chat choice and its alternatives as pairs of text and log-probability, each text
    once.

    () if the engine sent none; an unreadable log-probability becomes NaN.
    """
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, Mapping):
        return ()
    others = first.get("top_logprobs")
    rows = [first, *(others if isinstance(others, list) else ())]
    return tuple({str(r.get("token")): _number(r.get("logprob")) for r in rows if isinstance(r, Mapping)}.items())


def _arguments(call: object) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    return valid_text(arguments) if isinstance(arguments, str) else ""


def _chat_token(item: object) -> Token:
    if type(item) is not dict:
        return Token("", _NOT_A_NUMBER)
    text = item.get("token")
    others = item.get("top_logprobs")
    chosen = _number(item.get("logprob"))
    top: tuple[float, ...] = ()
    if type(others) is list and others:
        values = [_number(o.get("logprob")) if type(o) is dict else FORCED for o in others]
        if chosen not in values:
            values.append(chosen)  # a sampled token that is not among the best ones
        values = [x for x in values if x == x]
        values.sort(reverse=True)
        top = tuple(values)
    return Token(text if type(text) is str else "", chosen, top)


def _flat_tokens(logprobs: Mapping[str, Any], values: list[Any]) -> tuple[Token, ...]:
    """Return the tokens of the completions shape, without the first token of an echoed prompt: it has no
    log-probability."""
    texts, tops = logprobs.get("tokens"), logprobs.get("top_logprobs")
    tokens = []
    for i, value in enumerate(values):
        if value is None:
            continue
        text = texts[i] if isinstance(texts, list) and i < len(texts) else ""
        others = tops[i] if isinstance(tops, list) and i < len(tops) else None
        chosen = _number(value)
        candidates = [_number(x) for x in others.values()] if isinstance(others, Mapping) else []
        if candidates and chosen not in candidates:
            candidates.append(chosen)
        top = tuple(sorted((x for x in candidates if x == x), reverse=True))
        tokens.append(Token(text if isinstance(text, str) else "", chosen, top))
    return tuple(tokens)


def _number(value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _NOT_A_NUMBER
    return float(value)
