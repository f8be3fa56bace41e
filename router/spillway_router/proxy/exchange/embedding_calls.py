"""Fetches a whole answer for embeddings: in several calls where the backend takes fewer inputs, checked, and encoded as
the client asked.

    split    all calls of one request share one attempt and its hold, which covers the inputs of all of them. If a call
             fails, those before it are billed, and what they cost is charged
    check    as many vectors as inputs where several answers are joined, and vectors of the length that `dimensions`
             asks for: a backend that ignores the field would give vectors that fit no index
    encode   `encoding_format` as the client asked, also where the backend refuses the field or ignores it
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Outcome
from spillway_router.http_client.types import Pieces
from spillway_router.providers.embedding_answers import Encoding, encoded_as, encoding_of, joined, vector_length
from spillway_router.providers.streams import json_bytes, parse_object
from spillway_router.proxy.exchange.attempt import FetchedAnswer, UpstreamAttempt, fetch_whole

ENCODING = "encoding_format"
_AT_ONCE = 256 << 10
"""Bytes of an answer that are changed without a thread."""


@dataclass(frozen=True, slots=True)
class WantedVectors:
    """What a request for embeddings asks for. `dimensions`: numbers per vector, None for as many as the model has."""

    dimensions: int | None
    encoding: Encoding

    @staticmethod
    def of(body: Mapping[str, Any]) -> WantedVectors:
        """Read it from the client's body."""
        dimensions = body.get("dimensions")
        return WantedVectors(
            dimensions=dimensions if isinstance(dimensions, int) else None,
            encoding="base64" if body.get(ENCODING) == "base64" else "float",
        )


def is_split(attempt: UpstreamAttempt) -> bool:
    """Return whether the request takes more calls than one at the attempt's backend."""
    most = attempt.backend.max_inputs
    return most is not None and attempt.hold.facts.inputs > most


async def fetch_embeddings(
    attempt: UpstreamAttempt, body: bytes | Pieces, wanted: WantedVectors, within_s: float, limit_bytes: int
) -> FetchedAnswer:
    """Send `body`, in several calls if it has too many inputs, and return the answer that the client is to get.

    `within_s` is for each call, `limit_bytes` for all of them together.
    """
    if is_split(attempt):
        reply = await _in_several_calls(attempt, body, within_s, limit_bytes)
    else:
        reply = await _one_call(attempt, body, within_s, limit_bytes)
    return await _as_wanted(reply, wanted) if reply.outcome.kind == "ok" else reply


async def _in_several_calls(
    attempt: UpstreamAttempt, body: bytes | Pieces, within_s: float, limit_bytes: int
) -> FetchedAnswer:
    most = attempt.backend.max_inputs
    fields = parse_object(bytes(body))
    assert most is not None
    assert isinstance(fields, dict)
    inputs, replies = fields["input"], list[FetchedAnswer]()
    for start in range(0, len(inputs), most):
        batch = inputs[start : start + most]
        left_bytes = max(1, limit_bytes - sum(len(reply.body) for reply in replies))
        reply = await _one_call(attempt, json_bytes({**fields, "input": batch}), within_s, left_bytes)
        if reply.outcome.kind == "ok" and len(reply.answer["data"]) != len(batch):
            detail = f"{len(reply.answer['data'])} vectors came for {len(batch)} inputs"
            reply = FetchedAnswer(replace(reply.outcome, kind="failed", detail=detail, billed=True), reply.headers)
        if reply.outcome.kind != "ok":
            return replace(reply, outcome=_after(replies, reply.outcome))
        replies.append(reply)
    return await _joined(attempt, replies)


async def _one_call(attempt: UpstreamAttempt, body: bytes | Pieces, within_s: float, limit_bytes: int) -> FetchedAnswer:
    """Make one call; a second one without `encoding_format` if the backend refuses that field."""
    reply = await fetch_whole(attempt, "embeddings", body, within_s, limit_bytes)
    outcome = reply.outcome
    if outcome.kind not in ("rejected", "unserved"):
        return reply
    param = None if outcome.error is None else outcome.error.get("param")
    if ENCODING not in f"{outcome.said} {param}":
        return reply
    fields = parse_object(bytes(body))
    if not isinstance(fields, dict) or fields.pop(ENCODING, None) is None:
        return reply
    return await fetch_whole(attempt, "embeddings", json_bytes(fields), within_s, limit_bytes)


def _after(replies: Sequence[FetchedAnswer], outcome: Outcome) -> Outcome:
    """Return the outcome of a call that failed after others, which are billed.

    What they cost is charged. Where the failed call may be billed too, nobody knows the sum, and it is estimated for
    the whole request.
    """
    if not replies:
        return outcome
    usages = [reply.outcome.usage for reply in replies]
    certain = [usage for usage in usages if usage is not None and usage.certain]
    if outcome.billed or outcome.doubtful or len(certain) < len(usages):
        return replace(outcome, usage=None, billed=True, doubtful=False)
    # A call that answered, yet wrongly, told its usage itself.
    own = () if outcome.usage is None else (outcome.usage,)
    return replace(outcome, usage=_sum(*certain, *own), billed=True)


def _sum(*usages: Usage) -> Usage:
    amounts_nano = [usage.told_nano for usage in usages if usage.told_nano is not None]
    return replace(
        usages[0],
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        told_nano=sum(amounts_nano) if len(amounts_nano) == len(usages) else None,
    )


async def _joined(attempt: UpstreamAttempt, replies: Sequence[FetchedAnswer]) -> FetchedAnswer:
    """Return one answer made of those of all calls."""
    try:
        body, answer = await asyncio.to_thread(joined, [reply.body for reply in replies])
    except ValueError as error:
        return FetchedAnswer(Outcome("failed", 200, f"the vectors can't be joined: {error}", billed=True))
    usage = attempt.route.provider.usage("embeddings", answer)
    return FetchedAnswer(Outcome("ok", 200, usage=usage), replies[-1].headers, body, answer)


async def _as_wanted(reply: FetchedAnswer, wanted: WantedVectors) -> FetchedAnswer:
    """Return the answer in the encoding that the client asked for; an outcome that says what is wrong with it if its
    vectors have another length."""
    length = vector_length(reply.body)
    if wanted.dimensions is not None and length is not None and length != wanted.dimensions:
        detail = f"its vectors have {length} numbers, not the {wanted.dimensions} of 'dimensions'"
        outcome = replace(reply.outcome, kind="unserved", detail=detail, billed=True, fault="parameter")
        return FetchedAnswer(outcome, reply.headers)
    if encoding_of(reply.body) in (None, wanted.encoding):
        return reply
    try:
        if len(reply.body) <= _AT_ONCE:
            body = encoded_as(reply.body, wanted.encoding)
        else:
            body = await asyncio.to_thread(encoded_as, reply.body, wanted.encoding)
    except ValueError as error:
        outcome = replace(reply.outcome, kind="failed", detail=f"a vector can't be read: {error}", billed=True)
        return FetchedAnswer(outcome, reply.headers)
    # A plain dict: the places of fields in a large body are no longer those of these bytes.
    return replace(reply, body=body, answer=dict(reply.answer))
