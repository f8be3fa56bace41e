"""The part of an exchange that concerns shadows: what is kept of an answer, and which requests are offered to them."""

from __future__ import annotations

from spillway_router.core.caching.eligibility import why_ineligible
from spillway_router.providers.stream_text import stream_text
from spillway_router.proxy.client.client import StreamCopy
from spillway_router.proxy.exchange.better_answer import BETTER_THAN
from spillway_router.proxy.exchange.relay import HeldEvents
from spillway_router.proxy.exchange.shadow_sample import ShadowSample
from spillway_router.proxy.exchange.state import ExchangeState

ENDPOINTS = ("chat", "completions", "messages")
"""The endpoints whose requests a shadow may ask again."""
MOST_STREAM_BYTES = 1024 * 1024
"""Bytes of a stream that are kept to compare its text; a longer one is not compared."""


def is_compared(state: ExchangeState) -> bool:
    """Return whether the client's answer is to be compared with that of a shadow."""
    arm = state.config.policy.ruling.arm
    return arm is not None and arm.shadow == "asked" and state.facts.endpoint == "chat"


def keep_stream(state: ExchangeState) -> None:
    """Have a stream copied that is to be compared."""
    if state.facts.stream and state.client.stream_copy is None and is_compared(state):
        state.client.stream_copy = StreamCopy(MOST_STREAM_BYTES)


def streamed_text(copy: StreamCopy, tail: HeldEvents) -> str | None:
    """Return the text of a stream that the client got; None if it was too long. `tail` are the events held back."""
    data = copy.taken()
    return None if data is None else stream_text(data + b"".join([event.raw for event in tail.events]))


def offer_shadow(state: ExchangeState) -> None:
    """Give a request that has been answered to the shadow of its experiment, if it has one. Never waits.

    What a provider does or keeps on behalf of the request (tools, stored answers) it is to do only once.
    """
    arm = state.config.policy.ruling.arm
    if arm is None or not arm.shadow or state.status != 200 or state.cache_hit is not None or not state.backend:
        return
    facts = state.facts
    if facts.endpoint not in ENDPOINTS or state.byok_route is not None or BETTER_THAN in state.client.headers:
        return
    if why_ineligible(facts.endpoint, state.body, sampled=True):
        return
    attempt_no = state.numbers.next
    state.numbers.take()
    state.services.shadows.offer(
        ShadowSample(
            facts=facts,
            raw=state.client.body,
            body=state.body,
            backend=state.backend,
            answer=state.answer_text,
            attempt_no=attempt_no,
        )
    )
