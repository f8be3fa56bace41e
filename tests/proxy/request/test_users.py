"""The end user whom a request names: where the name stands in each protocol, and that only a pseudonym is kept."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_router.core.money.users import anonymous_id, user_id
from spillway_router.core.routing.model import Caller, Endpoint
from spillway_router.proxy.request.facts import PrivacyRule, read_facts

CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
RESPONSE = {"model": "auto", "input": "hello"}


def user_of(endpoint: Endpoint, body: dict[str, Any]) -> str:
    return read_facts("r1", endpoint, {}, body, Caller(key_id="k1"), PrivacyRule()).user_id


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("chat", {**CHAT, "user": "ann"}),
        ("chat", {**CHAT, "safety_identifier": "ann", "user": "other"}),
        ("chat", {**CHAT, "user": "ann", "tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("completions", {"prompt": "x", "user": "ann"}),
        ("embeddings", {"input": "x", "user": "ann"}),
        ("responses", {**RESPONSE, "safety_identifier": "ann"}),
        ("responses", {**RESPONSE, "user": "ann"}),
        ("messages", {**CHAT, "max_tokens": 1, "metadata": {"user_id": "ann"}}),
    ],
)
def test_a_user_is_named_in_the_way_of_each_protocol(endpoint: Endpoint, body: dict[str, Any]) -> None:
    assert user_of(endpoint, body) == user_id("k1", "ann")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("chat", CHAT),
        ("chat", {**CHAT, "user": ""}),
        ("chat", {**CHAT, "user": 7}),
        ("chat", {**CHAT, "metadata": {"user_id": "ann"}}),
        ("messages", {**CHAT, "max_tokens": 1, "metadata": {"user_id": None}}),
        ("messages", {**CHAT, "max_tokens": 1, "user": "ann"}),
        ("responses", {**RESPONSE, "metadata": None}),
    ],
)
def test_a_request_may_name_nobody(endpoint: Endpoint, body: dict[str, Any]) -> None:
    assert user_of(endpoint, body) == ""


def test_a_pseudonym_is_short_and_belongs_to_one_key() -> None:
    names = ("ann@example.com", "x" * 100_000, "\ud800 half a character", "")
    assert [len(user_id("k1", name)) for name in names] == [32] * 4
    assert user_id("k1", "1") != user_id("k2", "1")
    assert user_id("k", "1") != user_id("k\0", "1")
    assert anonymous_id("k1") == user_id("k1", "")
