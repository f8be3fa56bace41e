"""The cache around an exchange: a stored answer in place of a call, and what is stored of an answer.

The look-up comes after the decision, so that a request gets nothing that it could not have asked for: its key is known
and within its rate, and the backend that gave the answer must still be open to it. Health, load and budgets don't
matter. A whole answer and a stream are stored separately. Requests of equal content that come before the first answer
is stored each ask a backend, and the answer that ends last is kept. Where `cache.semantic` is set, a question that has
no stored answer gets that to a similar one (similar_answers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from spillway_router.caching.cache import AnswerCache
from spillway_router.core.caching.eligibility import why_ineligible
from spillway_router.core.caching.key import CachePlace, KeyContext, answer_key
from spillway_router.core.caching.stored import StoredAnswer, from_bytes, to_bytes
from spillway_router.core.money.tariff import Usage, usd
from spillway_router.core.routing.model import SEMANTIC, CacheHit
from spillway_router.core.routing.policy import may_be_given
from spillway_router.providers.sse import SseDecoder
from spillway_router.providers.streams import DONE
from spillway_router.proxy.client.client import StreamCopy
from spillway_router.proxy.client.replies import JSON, Lines, naming_lines
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.better_answer import BETTER_THAN
from spillway_router.proxy.exchange.presentation import response_headers
from spillway_router.proxy.exchange.relay import Ending, HeldEvents, tail_bytes
from spillway_router.proxy.exchange.similar_answers import neighbourhood_of
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.upstream_body import with_cost
from spillway_router.proxy.request.passed_names import TRACE_HEADERS

MOST_BODY_BYTES = 256 * 1024
"""The longest body that is looked up. A longer one is seldom sent twice, and a key of it takes a turn of the loop."""
_PIECE_BYTES = 64 * 1024
_NO_USAGE = Usage(0, 0)
_FREE = b"x-spillway-cost-usd: %b\r\n" % usd(0).encode()


async def answered_from_cache(state: ExchangeState) -> bool:
    """Answer a request with what is stored for it; False if a backend is to be asked. Then `state` knows whether the
    answer is to be stored."""
    cache = state.config.cache
    if cache is None:
        return False
    hint = cache.rules.hint_for(state.facts.hints.cache, state.facts.caller)
    if hint == "off":
        return False
    sampled = cache.rules.sampled or hint in ("sampled", "refresh")
    reason = _why_not(state, cache, sampled=sampled)
    if reason:
        cache.counts["bypass"] += 1
        state.cache_note = f"bypass; {reason}"
        return False
    body, context = _whole_body(state), _context(state, cache)
    key = answer_key(state.facts, body, context)
    state.cache_place = CachePlace(key, state.facts.privacy.may_leave)
    hit = None if hint == "refresh" else await _looked_up(state, cache, state.cache_place, body, context)
    if hit is None:
        state.cache_note = "refresh" if hint == "refresh" else "miss"
        cache.counts[state.cache_note] += 1
        if state.facts.stream:
            state.client.stream_copy = StreamCopy(cache.rules.most_answer_bytes)
        return False
    await _give(state, cache, *hit)
    return True


async def _looked_up(
    state: ExchangeState, cache: AnswerCache, place: CachePlace, body: Mapping[str, Any], context: KeyContext
) -> tuple[StoredAnswer, float | None] | None:
    """Return the stored answer to the same request, or that to a similar question and the similarity; None if there is
    neither. Then `state` knows where similar questions will find the answer."""
    stored = await _stored(state, cache, place.key)
    if stored is not None:
        return stored, None
    similar = cache.similar
    if similar is None:
        return None
    neighbourhood = await neighbourhood_of(state, similar, body, context)
    if neighbourhood is None:
        return None
    state.cache_place = replace(place, neighbourhood=neighbourhood)
    nearest = similar.index.nearest(neighbourhood, similar.rules.threshold)
    if nearest is None:
        return None
    key, similarity = nearest
    stored = await _stored(state, cache, key)
    if stored is None:  # it has expired or was forgotten, and hides no other one any more
        similar.index.forget(neighbourhood.key, key)
        return None
    return stored, similarity


def _why_not(state: ExchangeState, cache: AnswerCache, *, sampled: bool) -> str:
    """Return the reason token why the request may not use the cache, "" if it may."""
    if state.byok_route is not None:
        return "byok"
    if BETTER_THAN in state.client.headers:
        return "better-than"
    if not state.facts.privacy.may_leave and cache.leaves_process:
        return "privacy"
    if len(state.client.body) > MOST_BODY_BYTES:
        return "large"
    return why_ineligible(state.facts.endpoint, state.body, sampled=sampled)


def _whole_body(state: ExchangeState) -> dict[str, object]:
    """Return the body as JSON: one that was examined in steps may have strings that were cut."""
    body: dict[str, object] = state.body if type(state.body) is dict else orjson.loads(state.client.body)
    return body


def _context(state: ExchangeState, cache: AnswerCache) -> KeyContext:
    headers = [line.decode("ascii") for name, line in state.passed_headers if name not in TRACE_HEADERS]
    return KeyContext(
        policy=state.config.policy.version,
        rules=state.decision.rules,
        headers=tuple(headers),
        usage_cost=state.cost_requested,
        apart=cache.rules.users_apart,
    )


async def _stored(state: ExchangeState, cache: AnswerCache, key: bytes) -> StoredAnswer | None:
    """Return the stored answer if the request may have it and it is not too old."""
    data = await cache.get(key)
    stored = None if data is None else from_bytes(data)
    if stored is None or _age_s(state, stored) > cache.rules.ttl_s:
        return None
    return stored if may_be_given(state.facts, stored.backend, state.config.policy) else None


def _age_s(state: ExchangeState, stored: StoredAnswer) -> float:
    return max(0.0, state.services.wall() - stored.made_ms / 1000)


async def _give(state: ExchangeState, cache: AnswerCache, stored: StoredAnswer, similarity: float | None) -> None:
    """Give the client a stored answer, once its row is on disk. `similarity`: None for the same content."""
    services = state.services
    usage = Usage(
        stored.prompt_tokens, stored.completion_tokens, stored.cached_tokens, reasoning_tokens=stored.reasoning_tokens
    )
    hit = state.cache_hit = CacheHit(
        request_id=stored.request_id,
        backend=stored.backend,
        model=stored.model,
        usage=usage,
        age_s=_age_s(state, stored),
        saved_nano=stored.cost_nano,
        similarity=similarity,
    )
    state.decided, state.cache_note = "cache", "hit"
    state.reasons = () if similarity is None else (SEMANTIC,)
    state.backend, state.confidence, state.refusal = stored.backend, stored.confidence, None
    cache.counts["hit" if similarity is None else SEMANTIC] += 1
    cache.saved_nano += stored.cost_nano
    await services.accounts.durable(services.accounts.note_cache_hit(state.facts, hit))
    if state.facts.stream:
        await _replay(state, stored)
        return
    body = stored.body
    if state.cost_requested and isinstance((answer := orjson.loads(body)).get("usage"), dict):
        body = with_cost(body, answer, 0.0)
    state.client.reply(200, [JSON, *_headers(state, hit), _FREE], body)


def _headers(state: ExchangeState, hit: CacheHit) -> Lines:
    age = b"x-spillway-decision: cache\r\nage: %d\r\n" % int(hit.age_s)
    return [*state.client.base_headers, naming_lines(hit.backend, hit.model), age, *response_headers(state, None)]


async def _replay(state: ExchangeState, stored: StoredAnswer) -> None:
    """Send a stored stream as a stream, as fast as the client reads it."""
    client, hit = state.client, state.cache_hit
    assert hit is not None
    pieces = _pieces(stored.body)
    client.begin_stream(_headers(state, hit), next(pieces, b""))
    for piece in pieces:
        if client.paused:
            await client.drain()
        client.write(piece)
    options = state.body.get("stream_options")
    usage_asked = isinstance(options, dict) and options.get("include_usage") is True
    ending = Ending(
        usage_asked=usage_asked,
        usage_added=stored.usage_added,
        cost_nano=0 if usage_asked or state.cost_requested else None,
        closing=b"data: " + DONE + b"\n\n" if state.facts.endpoint in ("chat", "completions") else b"",
    )
    client.end_stream(tail_bytes(HeldEvents(SseDecoder().feed(stored.tail)), ending))


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES]


def store_whole(state: ExchangeState, attempt: UpstreamAttempt, usage: Usage | None, body: bytes) -> None:
    """Store a whole answer that the client gets, without its cost."""
    _store(state, attempt, usage, body=body, tail=b"", usage_added=False)


def store_stream(
    state: ExchangeState, attempt: UpstreamAttempt, usage: Usage | None, tail: HeldEvents, *, usage_added: bool
) -> None:
    """Store a stream that the client got to its end. `tail` has the events that were held for the row."""
    copy = state.client.stream_copy
    body = None if copy is None or state.client.disconnected else copy.taken()
    if body is not None:
        held = b"".join([event.raw for event in tail.events])
        _store(state, attempt, usage, body=body, tail=held, usage_added=usage_added)


def _store(
    state: ExchangeState, attempt: UpstreamAttempt, usage: Usage | None, *, body: bytes, tail: bytes, usage_added: bool
) -> None:
    cache, place = state.config.cache, state.cache_place
    if cache is None or place is None or len(body) + len(tail) > cache.rules.most_answer_bytes:
        return
    if place.may_leave and not attempt.privacy.may_leave:
        return  # it turned out to be private on its way, and its key is that of a public one
    counts = usage or _NO_USAGE
    answer = StoredAnswer(
        made_ms=int(state.services.wall() * 1000),
        request_id=state.facts.request_id,
        backend=attempt.backend.name,
        model=attempt.backend.model,
        confidence=state.confidence,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cached_tokens=counts.cached_tokens,
        reasoning_tokens=counts.reasoning_tokens,
        cost_nano=state.cost_nano(),
        body=body,
        tail=tail,
        usage_added=usage_added,
    )
    cache.put(place.key, to_bytes(answer), cache.rules.ttl_s)
    if cache.similar is not None and place.neighbourhood is not None:
        cache.similar.index.add(place.neighbourhood, place.key)
