"""Asks the engine about its own answer where its confidence leaves the decision open (core/confidence/self_check.py).

Off by default. Only whole answers that the client has not seen are checked, and only where a better answer could
replace them. The question goes to the backend that answered and nowhere else, so nothing leaves that has not left
before. Its prompt is the request followed by the answer and the question; most of it is in the engine's prefix cache
already. It may take as long as the latency promise for the whole answer still lasts. It is an attempt of its own, with
the decision `audit` and the reason `self_check`: it costs GPU time but no money. If anything goes wrong with it, the
answer keeps the verdict it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from spillway_router.core.confidence.judge import ConfidenceVerdict, with_score
from spillway_router.core.confidence.self_check import SHORTEST_S, SelfCheck, is_worth_asking, p_true, stated
from spillway_router.core.routing.model import Outcome
from spillway_router.ledger.holds import AttemptReason
from spillway_router.providers.logprobs import answer_text, first_alternatives
from spillway_router.proxy.exchange.attempt import NotOpened, UpstreamAttempt, fetch_whole, open_attempt
from spillway_router.proxy.exchange.escalation import criteria, may_escalate, threshold
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.request.large_body import cut_strings

REASON = "self_check"
ALTERNATIVES = 20
"""As many alternatives as engines return: the words are looked for among them."""
MOST_TOKENS = {"p_true": 1, "stated": 6}
MOST_BYTES = 64 * 1024
NEW_TOKENS = 64
"""Assumed tokens of the question and the answer's end: what the prefix cache doesn't hold."""
_PROMPT_FIELDS = (
    "messages",
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
    "documents",
    "cache_salt",
)
"""Fields that make the prompt: if any of them changed, the prefix cache would not serve it."""
_NOTHING_TO_LEARN = Outcome("cancelled", detail="a self check")
"""The outcome for the board. One token for a cached prompt says nothing of the engine's speed, of the length of
answers, or (if a short promise cut it off) of its health."""


def question_body(body: Mapping[str, Any], model: str, answer: str, rule: SelfCheck) -> dict[str, Any]:
    """The chat request that asks about `answer`, which was given to `body`."""
    asked = question_about(body, answer, rule.question, max_tokens=MOST_TOKENS[rule.kind])
    asked["model"] = model
    if rule.kind == "p_true":
        asked |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    return asked


def question_about(body: Mapping[str, Any], answer: str, question: str, *, max_tokens: int) -> dict[str, Any]:
    """The chat request, still without a model, that asks a question about `answer`, which was given to `body`."""
    asked: dict[str, Any] = {name: body[name] for name in _PROMPT_FIELDS if name in body}
    turns = ({"role": "assistant", "content": answer}, {"role": "user", "content": question})
    asked |= {"messages": [*body["messages"], *turns], "max_tokens": max_tokens, "temperature": 0}
    if "tools" in asked:
        asked["tool_choice"] = "none"
    return asked


def score_of(choice: Mapping[str, Any], rule: SelfCheck) -> float | None:
    """The score in [0, 1] in a reply to the question; None where the reply gives none."""
    if rule.kind == "p_true":
        return p_true(first_alternatives(choice), rule.words)
    return stated_in(choice)


def stated_in(choice: Mapping[str, Any]) -> float | None:
    """The score in [0, 1] that a reply states as a number; None where it states none."""
    # A number that was cut off may be the beginning of a larger one.
    return stated(answer_text(choice)) if choice.get("finish_reason") == "stop" else None


async def verdict_with_self_check(
    state: ExchangeState, draft: UpstreamAttempt, verdict: ConfidenceVerdict | None, answer: str, outcome: Outcome
) -> ConfidenceVerdict | None:
    """The verdict on a whole answer, after the engine was asked about it where that could change anything.

    `outcome` is that of the answer's own attempt.
    """
    rule = state.config.scoring.self_check
    if rule is None or verdict is None or not _can_matter(state):
        return verdict
    within_s = min(rule.longest_s, _slack_s(state, outcome))
    if within_s < SHORTEST_S or not is_worth_asking(rule, verdict, threshold(state, draft.backend)):
        return verdict
    # The answer is whole: what is learned from its time must not include the self check.
    state.services.board.ended(draft.tracked, outcome, state.services.clock(), streamed=draft.streamed)
    score = await _ask(state, draft, rule, answer, within_s)
    if score is None:
        return verdict
    judged_by = criteria(state, draft)
    return with_score(verdict, rule.kind, score, judged_by.task, judged_by.calibration)


def _can_matter(state: ExchangeState) -> bool:
    # A body whose long strings were cut can't be sent again.
    whole = not cut_strings(state.body)
    return whole and state.facts.endpoint == "chat" and state.facts.choices == 1 and may_escalate(state)


def _slack_s(state: ExchangeState, outcome: Outcome) -> float:
    """Seconds until the promised end of the whole answer: its first token in time, then each of its tokens."""
    slo = state.config.policy.slo
    tokens = 0 if outcome.usage is None else outcome.usage.completion_tokens
    promised_s = (state.facts.hints.slo_ttft_s or slo.ttft_s) + slo.tpot_s * tokens
    return state.started_s + promised_s - state.services.clock()


async def _ask(
    state: ExchangeState, draft: UpstreamAttempt, rule: SelfCheck, answer: str, within_s: float
) -> float | None:
    """The score, or None. The attempt is closed and its row on its way to the ledger when this returns."""
    attempt = await _open(state, draft, rule)
    if isinstance(attempt, NotOpened):
        return None
    state.attempts.append(attempt)
    attempt.answers = False
    outcome, score = Outcome("cancelled", billed=True, detail="the client left"), None
    try:
        question = question_body(state.body, attempt.backend.model, answer, rule)
        drops_fields = attempt.route.provider.entry.drops_fields
        body = orjson.dumps({name: question[name] for name in question.keys() - drops_fields})
        async with asyncio.timeout(within_s):
            reply = await fetch_whole(attempt, "chat", body, within_s, MOST_BYTES)
        outcome = reply.outcome
        if outcome.kind == "ok":
            score = score_of(reply.answer["choices"][0], rule)
    except TimeoutError:
        outcome = Outcome("timeout", detail=f"no self check within {within_s * 1000:.0f} ms", billed=True)
    finally:
        state.services.board.ended(attempt.tracked, _NOTHING_TO_LEARN, state.services.clock(), streamed=False)
        attempt.close(outcome, discarded=outcome.kind == "ok")
    if attempt.record is not None:
        # The request's record shows the score. The ledger's confidences are those of answers, as pacing counts them.
        attempt.record = replace(attempt.record, confidence=score)
    return score


async def _open(state: ExchangeState, draft: UpstreamAttempt, rule: SelfCheck) -> UpstreamAttempt | NotOpened:
    """An attempt of its own at the draft's backend, which is local and free."""
    return await open_attempt(
        state.services,
        state.config,
        state.facts,
        replace(
            draft.candidate,
            reasons=(REASON,),
            prompt_tokens=NEW_TOKENS,
            output_tokens=MOST_TOKENS[rule.kind],
            bound_nano=0,
        ),
        route=draft.route,
        reason=AttemptReason("audit", (REASON,)),
        numbers=state.numbers,
        request_started_s=state.started_s,
    )
