"""The measurement of crossings finds a cache that forgets to separate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from evidence.caching.crossings import changes, try_requests

from spillway_router.core.caching.key import KeyContext, answer_key
from spillway_router.core.routing.model import Caller, Hints, PrivacyVerdict, RequestFacts
from spillway_router.proxy.exchange import cached_answers

Key = Callable[[RequestFacts, Mapping[str, Any], KeyContext], bytes]
REQUESTS = 2_500


def without_caller(facts: RequestFacts, body: Mapping[str, Any], context: KeyContext) -> bytes:
    return answer_key(replace(facts, caller=Caller()), body, context)


def without_privacy(facts: RequestFacts, body: Mapping[str, Any], context: KeyContext) -> bytes:
    caller = replace(facts.caller, local_only=False)
    return answer_key(replace(facts, caller=caller, privacy=PrivacyVerdict(True)), body, context)


def without_tools(facts: RequestFacts, body: Mapping[str, Any], context: KeyContext) -> bytes:
    return answer_key(facts, {name: value for name, value in body.items() if name != "tools"}, context)


def without_hints(facts: RequestFacts, body: Mapping[str, Any], context: KeyContext) -> bytes:
    return answer_key(replace(facts, hints=Hints()), body, context)


def test_the_cache_crosses_nothing_and_everything_is_changed() -> None:
    seen = asyncio.run(try_requests(REQUESTS))
    assert seen.crossed == []
    assert changes() <= seen.tried.keys()
    assert seen.hits > REQUESTS / 4
    assert seen.missed < seen.repeated / 20


def test_one_after_the_other_every_repeat_gets_the_stored_answer() -> None:
    """Of several at once some miss, because the first answer to the same request is still under way."""
    seen = asyncio.run(try_requests(1_000, at_once=1))
    assert (seen.missed, seen.repeated > 300, seen.crossed) == (0, True, [])


@pytest.mark.parametrize("forgetful", [without_caller, without_privacy, without_tools, without_hints])
def test_a_forgetful_key_is_found(forgetful: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_answers, "answer_key", forgetful)
    assert asyncio.run(try_requests(REQUESTS)).crossed
