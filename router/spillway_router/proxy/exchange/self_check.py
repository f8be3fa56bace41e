"""Asks the engine about its own answer, where confidence leaves it open (core/confidence/self_check.py). Off by
default.

Only whole answers that the client has not seen, and only those that a better answer could replace. It goes to the
backend that answered and nowhere else, so that nothing leaves which has not left; its prompt is the request with answer
and question behind it, most of which lies in the engine's prefix cache already. It may take as long as the latency
promise for the whole answer still lasts. It is an attempt of its own, with the decision `audit` and the reason
`self_check`: no money, but GPU time. Whatever goes wrong with it, the answer stands as it was judged before.
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
from spillway_router.http_client.connection import TransportError
from spillway_router.ledger.holds import AttemptReason, HoldRefused
from spillway_router.providers.logprobs import answer_text, first_alternatives
from spillway_router.providers.streams import MalformedObject, parse_object
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.outcomes import transport_outcome
from spillway_router.proxy.exchange.state import ExchangeState

REASON = "self_check"
ALTERNATIVES = 20
"""As many as engines give: the words are looked for among them."""
MOST_TOKENS = {"p_true": 1, "stated": 6}
MOST_BYTES = 64 * 1024
NEW_TOKENS = 64
"""Believed of question and answer's end: what the prefix cache doesn't hold."""
_KEPT = ("messages", "tools", "chat_template", "chat_template_kwargs", "mm_processor_kwargs", "documents", "cache_salt")
"""What the prompt is made of: with any of it changed the prefix cache would not serve it."""
_UNTAUGHT = Outcome("cancelled", detail="a second look")
"""What the board is told of it: that it is over. One token for a cached prompt says nothing of the engine's speed, of
the length of answers, or (cut off by a short promise) of its health."""


def question_body(body: Mapping[str, Any], model: str, answer: str, rule: SelfCheck) -> dict[str, Any]:
    """The chat request that asks about `answer`, which was given to `body`."""
    asked: dict[str, Any] = {name: body[name] for name in _KEPT if name in body}
    turns = ({"role": "assistant", "content": answer}, {"role": "user", "content": rule.question})
    asked |= {"model": model, "messages": [*body["messages"], *turns]}
    asked |= {"max_tokens": MOST_TOKENS[rule.kind], "temperature": 0}
    if "tools" in asked:
        asked["tool_choice"] = "none"
    if rule.kind == "p_true":
        asked |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    return asked


def score_of(choice: Mapping[str, Any], rule: SelfCheck) -> float | None:
    """The score in [0, 1] that a reply to the question gives; None where it gives none."""
    if rule.kind == "p_true":
        return p_true(first_alternatives(choice), rule.words)
    # A number that was cut off may be the beginning of a larger one.
    return stated(answer_text(choice)) if choice.get("finish_reason") == "stop" else None


async def second_look(
    job: ExchangeState, draft: UpstreamAttempt, verdict: ConfidenceVerdict | None, answer: str, outcome: Outcome
) -> ConfidenceVerdict | None:
    """The verdict on a whole answer, after the engine was asked about it where that could change anything.

    `outcome`: how the answer's own attempt went.
    """
    rule = job.live.scoring.self_check
    if rule is None or verdict is None or not _may_matter(job):
        return verdict
    within_s = min(rule.longest_s, _slack_s(job, outcome))
    if within_s < SHORTEST_S or not is_worth_asking(rule, verdict, job.least_confidence()):
        return verdict
    # The answer is whole: what is learnt from its time must not count the second look.
    job.s.board.ended(draft.trip, outcome, job.s.clock(), streamed=draft.streamed)
    score = await _ask(job, draft, rule, answer, within_s)
    if score is None:
        return verdict
    yardstick = job.yardstick(draft)
    return with_score(verdict, rule.kind, score, yardstick.task, yardstick.calibration)


def _may_matter(job: ExchangeState) -> bool:
    return job.facts.endpoint == "chat" and job.facts.choices == 1 and job.escalates()


def _slack_s(job: ExchangeState, outcome: Outcome) -> float:
    """Seconds until the promised end of the whole answer: its first token in time, and then each of its tokens."""
    slo = job.live.policy.slo
    tokens = 0 if outcome.usage is None else outcome.usage.completion_tokens
    promised_s = (job.facts.hints.slo_ttft_s or slo.ttft_s) + slo.tpot_s * tokens
    return job.asked.started + promised_s - job.s.clock()


async def _ask(
    job: ExchangeState, draft: UpstreamAttempt, rule: SelfCheck, answer: str, within_s: float
) -> float | None:
    """The score, or None; closed and on its way to the ledger when this returns."""
    call = await _open(job, draft, rule)
    if call is None:
        return None
    pool, provider = call.channel.pool, call.channel.provider
    outcome, score = Outcome("cancelled", billed=True, detail="the client left"), None
    try:
        asked = question_body(job.body, call.channel.backend.model, answer, rule)
        body = orjson.dumps({name: asked[name] for name in asked.keys() - provider.entry.drops_fields})
        head = pool.head(provider.path("chat"), len(body), call.label())
        async with asyncio.timeout(within_s):
            reply = await pool.call(head, body, within_s, MOST_BYTES)
        outcome = provider.outcome(reply, job.s.wall())
        if outcome.kind == "ok":
            outcome, score = _read(call, reply.body, rule)
    except TimeoutError:
        outcome = Outcome("timeout", detail=f"no second look within {within_s * 1000:.0f} ms", billed=True)
    except TransportError as error:
        outcome = transport_outcome(error)
    finally:
        job.s.board.ended(call.trip, _UNTAUGHT, job.s.clock(), streamed=False)
        call.close(outcome, discarded=outcome.kind == "ok")
    if call.record is not None:
        # For whoever asks for the request's record. The ledger's confidences are those of answers: pacing counts them.
        call.record = replace(call.record, confidence=score)
    return score


async def _open(job: ExchangeState, draft: UpstreamAttempt, rule: SelfCheck) -> UpstreamAttempt | None:
    """An attempt of its own at the draft's backend; None where it can't be made."""
    s = job.s
    tokens = MOST_TOKENS[rule.kind]
    candidate = replace(draft.candidate, reasons=(REASON,), prompt_tokens=NEW_TOKENS, output_tokens=tokens)
    no = job.client.attempts_before + len(job.calls) + job.unused + 1
    hold = await s.accounts.hold(job.facts, draft.channel.backend, AttemptReason("audit", (REASON,)), no, 0)
    if isinstance(hold, HoldRefused):
        return None
    trip = s.board.sent(candidate, 0, job.live.policy.slo.ttft_s, s.clock())
    if trip is None:
        s.accounts.release(hold)
        return None
    call = UpstreamAttempt((s.accounts, s.board, s.clock), draft.channel, candidate, hold, trip, job.asked.started)
    job.calls.append(call)
    return call


def _read(call: UpstreamAttempt, body: bytes, rule: SelfCheck) -> tuple[Outcome, float | None]:
    """How it went, and the score in the reply."""
    parsed = parse_object(body)
    flaw = parsed.flaw if isinstance(parsed, MalformedObject) else call.channel.provider.flaw("chat", parsed)
    if isinstance(parsed, MalformedObject) or flaw is not None:
        return Outcome("failed", 200, str(flaw), billed=True), None
    return Outcome("ok", 200, usage=call.channel.provider.usage(parsed)), score_of(parsed["choices"][0], rule)
