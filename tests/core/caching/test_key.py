"""What makes requests the same for the cache: only what is known to change no answer may differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.caching.eligibility import why_ineligible
from spillway_router.core.caching.key import KeyContext, answer_key
from spillway_router.core.caching.stored import StoredAnswer, from_bytes, to_bytes
from spillway_router.core.routing.model import Caller, Endpoint, Hints, PrivacyVerdict, RequestFacts

ENDPOINTS: tuple[Endpoint, ...] = ("chat", "completions", "embeddings", "responses", "messages")
CONTEXT = KeyContext("v1")
FACTS = RequestFacts(
    request_id="r",
    endpoint="chat",
    model="auto",
    stream=False,
    prompt_bytes=10,
    max_tokens=None,
    choices=1,
    needs=frozenset(),
    privacy=PrivacyVerdict(True),
    caller=Caller("k1", tier="paid"),
    user_id="u1",
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
LABELS = frozenset({"user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention"})
FORM = frozenset({"stream", "stream_options", "store"})
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name not in LABELS | FORM) | st.sampled_from(
    ["seed", "tools", "top_p", "n", "response_format", "reasoning_effort", "logit_bias", "max_tokens"]
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)


def shape(value: Any) -> Any:
    """The value with its types and the order of inner keys, so that 1, 1.0 and true differ."""
    if isinstance(value, dict):
        return ("object", [(name, shape(inner)) for name, inner in value.items()])
    if isinstance(value, list):
        return ("array", [shape(inner) for inner in value])
    return (type(value).__name__, repr(value))


@given(BODIES, BODIES, st.sampled_from(ENDPOINTS))
def test_bodies_have_one_key_exactly_if_they_are_the_same(
    one: dict[str, Any], other: dict[str, Any], at: Endpoint
) -> None:
    facts = replace(FACTS, endpoint=at)
    same = {name: shape(value) for name, value in one.items()} == {name: shape(value) for name, value in other.items()}
    assert (answer_key(facts, one, CONTEXT) == answer_key(facts, other, CONTEXT)) == same


@given(BODIES, NAMES, VALUES, st.sampled_from(ENDPOINTS))
def test_a_field_that_nobody_knows_separates(body: dict[str, Any], name: str, value: Any, at: Endpoint) -> None:
    facts = replace(FACTS, endpoint=at)
    without = {other: inner for other, inner in body.items() if other != name}
    assert answer_key(facts, {**without, name: value}, CONTEXT) != answer_key(facts, without, CONTEXT)


@given(BODIES, st.sampled_from(sorted(LABELS)), VALUES)
def test_labels_do_not_separate_chats_but_responses_that_repeat_them(
    body: dict[str, Any], name: str, value: Any
) -> None:
    responses = replace(FACTS, endpoint="responses")
    assert answer_key(FACTS, {**body, name: value}, CONTEXT) == answer_key(FACTS, body, CONTEXT)
    assert answer_key(responses, {**body, name: value}, CONTEXT) != answer_key(responses, body, CONTEXT)


OTHERS = {
    "key": replace(FACTS, caller=Caller("k2", tier="paid")),
    "tier": replace(FACTS, caller=Caller("k1", tier="free")),
    "no key": replace(FACTS, caller=Caller()),
    "private": replace(FACTS, privacy=PrivacyVerdict(False, ("keyword",))),
    "private for another reason": replace(FACTS, privacy=PrivacyVerdict(False, ("key",))),
    "key that stays local": replace(FACTS, caller=Caller("k1", tier="paid", local_only=True)),
    "endpoint": replace(FACTS, endpoint="completions"),
    "model": replace(FACTS, model="other"),
    "stream": replace(FACTS, stream=True),
    "route": replace(FACTS, hints=Hints(route="local")),
    "confidence": replace(FACTS, hints=Hints(min_confidence=0.9)),
    "most cost": replace(FACTS, hints=Hints(max_cost_nano=5)),
    "latency": replace(FACTS, hints=Hints(slo_ttft_s=1.0)),
}
CONTEXTS = (
    KeyContext("v2"),
    KeyContext("v1", rules=("night",)),
    KeyContext("v1", headers=("openai-beta: x\r\n",)),
    KeyContext("v1", usage_cost=True),
    KeyContext("v1", apart=True),
)


def test_whatever_may_change_an_answer_separates() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    keys = [answer_key(facts, body, CONTEXT) for facts in (FACTS, *OTHERS.values())]
    keys += [answer_key(FACTS, body, context) for context in CONTEXTS]
    assert len(set(keys)) == 1 + len(OTHERS) + len(CONTEXTS)
    streams = replace(FACTS, stream=True)
    options = {**body, "stream": True, "stream_options": {"include_usage": True}}
    assert answer_key(streams, options, CONTEXT) != answer_key(streams, {**body, "stream": True}, CONTEXT)
    assert answer_key(replace(FACTS, hints=Hints(session_id="s")), body, CONTEXT) == keys[0]
    assert answer_key(FACTS, {**body, "stream": False, "store": False}, CONTEXT) == keys[0]
    other_user = replace(FACTS, user_id="u2")
    assert answer_key(other_user, body, CONTEXT) == keys[0]
    assert answer_key(other_user, body, CONTEXTS[-1]) != answer_key(FACTS, body, CONTEXTS[-1])


COLD = {"temperature": 0}
INELIGIBLE: list[tuple[Endpoint, dict[str, Any], str]] = [
    ("chat", {}, "sampled"),
    ("chat", {"temperature": None}, "sampled"),
    ("chat", {"temperature": False}, "sampled"),
    ("chat", {"temperature": 1e-9}, "sampled"),
    ("messages", {"temperature": 1}, "sampled"),
    ("chat", {**COLD, "tools": [{"type": "web_search"}]}, "tools"),
    ("messages", {**COLD, "tools": [{"name": "f"}, {"type": "web_search_20250305"}]}, "tools"),
    ("chat", {**COLD, "web_search_options": {}, "plugins": [{"id": "web"}]}, "tools"),
    ("messages", {**COLD, "mcp_servers": [{"url": "https://x"}]}, "tools"),
    ("chat", {**COLD, "store": True}, "stored"),
    ("responses", COLD, "stored"),
    ("responses", {**COLD, "store": False, "previous_response_id": "r"}, "context"),
    ("responses", {**COLD, "store": False, "conversation": "c"}, "context"),
    ("responses", {**COLD, "store": False, "prompt": {"id": "p"}}, "context"),
    ("responses", {**COLD, "store": False, "input": [{"type": "item_reference", "id": "i"}]}, "context"),
    ("chat", {**COLD, "modalities": ["text", "audio"]}, "audio"),
]
ELIGIBLE: list[tuple[Endpoint, dict[str, Any]]] = [
    ("chat", COLD),
    ("chat", {"temperature": 0.0, "n": 2, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("messages", {**COLD, "tools": [{"name": "f"}, {"type": "custom", "name": "g"}]}),
    ("completions", COLD),
    ("responses", {**COLD, "store": False, "input": "hi"}),
    ("embeddings", {"input": "hi"}),
]


@pytest.mark.parametrize(("endpoint", "body", "reason"), INELIGIBLE)
def test_requests_that_may_not_use_the_cache_say_why(endpoint: Endpoint, body: dict[str, Any], reason: str) -> None:
    assert why_ineligible(endpoint, body, sampled=False) == reason
    assert why_ineligible(endpoint, body, sampled=True) == ("" if reason == "sampled" else reason)


@pytest.mark.parametrize(("endpoint", "body"), ELIGIBLE)
def test_requests_that_may_use_it(endpoint: Endpoint, body: dict[str, Any]) -> None:
    assert why_ineligible(endpoint, body, sampled=False) == ""


ANSWER = StoredAnswer(
    made_ms=5,
    request_id="r",
    backend="cloud",
    model="m",
    confidence=0.5,
    prompt_tokens=3,
    completion_tokens=2,
    cached_tokens=1,
    reasoning_tokens=0,
    cost_nano=7,
    body=b"\n{}\n",
    tail=b"data: [DONE]\n\n",
    usage_added=True,
)


@given(st.binary(), st.binary(), st.integers(0, 2**62), st.none() | st.floats(0, 1))
def test_a_stored_answer_is_read_as_it_was_written(body: bytes, tail: bytes, cost: int, sure: float | None) -> None:
    answer = replace(ANSWER, body=body, tail=tail, cost_nano=cost, confidence=sure)
    assert from_bytes(to_bytes(answer)) == answer


@given(st.binary() | st.builds(lambda cut: to_bytes(ANSWER)[:cut], st.integers(0, 200)))
def test_other_bytes_are_no_answer(data: bytes) -> None:
    stored = from_bytes(data)
    assert stored is None or len(stored.body) + len(stored.tail) < len(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"version":1', b'"version":2'), (b'"cost_nano":7', b'"cost_nano":-7'), (b'"tail_bytes":14', b'"tail_bytes":99')],
)
def test_a_wrong_description_is_no_answer(old: bytes, new: bytes) -> None:
    data = to_bytes(ANSWER)
    assert old in data
    assert from_bytes(data.replace(old, new)) is None
