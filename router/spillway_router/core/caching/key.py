"""The key of a request in the cache: equal for two requests only if the same answer serves both.

It is the SHA-256 of everything that may change an answer: whose request it is, what may become of its content, by which
policy it is answered, in which form, and its body. Of the body only the fields that are listed here are left out, each
of which is known to change nothing, so that a field that nobody knows here separates requests. Only the order of the
top-level fields doesn't matter: inside of them, as in a JSON schema, models read the order too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import orjson

from spillway_router.core.caching.question import Question
from spillway_router.core.caching.vectors import Vector
from spillway_router.core.routing.model import Endpoint, RequestFacts

VERSION = 1
"""Of what a key is made from and of the stored form; another one finds nothing of what was stored before."""
_FORM = frozenset({"stream", "stream_options"})
"""Fields that choose the form of the answer, which the key names by itself."""
_NAMES_AND_LABELS: Mapping[Endpoint, frozenset[str]] = {
    "chat": frozenset({"user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention"}),
    "completions": frozenset({"user"}),
    "embeddings": frozenset({"user"}),
    "responses": frozenset(),  # an answer repeats its request's labels
    "messages": frozenset({"metadata"}),
}
"""Fields by which a client names its user and labels its request: no model reads them, and no answer repeats them."""


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What separates requests besides their facts and their body.

    `policy` is the version of the policy and `rules` are those of its rules that apply; `headers` are the lines that
    go on to the backend; `usage_cost` says whether the answer tells its cost. With `apart`, the users of an API key,
    as requests name them, get nothing from each other.
    """

    policy: str
    rules: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    usage_cost: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Where a question lies among similar ones: the key of everything else that must agree, and its unit vector."""

    key: bytes
    vector: Vector


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where the answer of a request is to be stored: its key, whether its content might leave when that was made, and
    where requests with a similar question find it; None if they don't."""

    key: bytes
    may_leave: bool
    neighbourhood: Neighbourhood | None = None


def answer_key(facts: RequestFacts, body: Mapping[str, Any], context: KeyContext) -> bytes:
    """Return the key of a request, of 32 bytes. `body` is its whole JSON, without strings that were cut."""
    caller, hints, privacy = facts.caller, facts.hints, facts.privacy
    who = (caller.key_id, caller.role, caller.tier, caller.may_route, facts.user_id if context.apart else "")
    private = (privacy.may_leave, privacy.reasons, caller.local_only)
    asked = (facts.model, hints.route, hints.min_confidence, hints.slo_ttft_s, hints.max_cost_nano)
    form = (facts.stream, body.get("stream_options") if facts.stream else None, context.usage_cost)
    by = (context.policy, context.rules, context.headers)
    left_out = _FORM | _NAMES_AND_LABELS[facts.endpoint]
    if not body.get("store"):
        left_out |= {"store"}
    fields = sorted([item for item in body.items() if item[0] not in left_out], key=lambda item: item[0])
    return sha256(orjson.dumps((VERSION, facts.endpoint, who, private, asked, form, by, fields))).digest()


def neighbourhood_key(facts: RequestFacts, question: Question, context: KeyContext) -> bytes:
    """Return the key that requests share whose answers may serve each other if their questions are similar: it differs
    from `answer_key` by the text of the question, of which only the marks count."""
    frame = answer_key(facts, question.frame, context)
    return sha256(frame + orjson.dumps(asdict(question.marks))).digest()
