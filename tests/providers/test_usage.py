"""The reader of usage: every dialect of the table, whole and over a stream, and the rules where counts contradict."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from evidence.money.usage_shapes import UsageCase, load_cases

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Endpoint
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.providers.sse import SseDecoder
from spillway_router.providers.usage import PLAIN, UsageDialect, UsageTally, read_usage

CATALOGUE = load_catalogue()
CASES = load_cases()
EVERYWHERE = UsageDialect(elsewhere=("x_groq", "choices", "timings"))


def name(case: UsageCase) -> str:
    return f"{case.path}-{'stream' if case.stream else 'whole'}-{case.name}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_shape_of_the_table_is_read_without_a_router(case: UsageCase) -> None:
    usage = read(case)
    expected = case.expected
    if expected.estimated or (expected.status == "unknown" and usage is not None and is_nonsense(usage)):
        assert usage is None or not usage.certain or is_nonsense(usage) or not is_final(case)
        return
    assert usage is not None
    assert usage.prompt_tokens == expected.prompt
    assert usage.completion_tokens == expected.completion
    assert usage.cached_tokens == expected.cached
    assert usage.cache_write_tokens == expected.written
    assert usage.cache_write_long_tokens == expected.written_long
    assert usage.reasoning_tokens == expected.reasoning
    assert usage.service == expected.service
    if expected.status == "ok":
        assert usage.certain
        assert dict(usage.calls) == dict(expected.calls)


def is_final(case: UsageCase) -> bool:
    """Return whether the upstream ends the answer itself."""
    return case.answer.end == "whole"


def is_nonsense(usage: Usage) -> bool:
    """Return whether the ledger does not believe it."""
    return usage.prompt_tokens > 1_000_000 or (usage.told_nano or 0) > 10**12


def read(case: UsageCase) -> Usage | None:
    """Read a case as the relay or the attempt does."""
    provider = provider_for(CATALOGUE[case.provider])
    endpoint: Endpoint = case.path  # type: ignore[assignment]  # the table's paths are endpoints
    if not case.stream:
        return provider.usage(endpoint, orjson.loads(case.answer.body))
    monitor = provider.stream_monitor(endpoint, 1)
    for event in SseDecoder().feed(case.answer.body):
        if event.data is not None and monitor.check(event.name, event.data) is not None:
            break
    return monitor.usage


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "7",
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": "seven"},
        {"prompt_tokens": True},
        {"total_tokens": 7},
    ],
)
def test_usage_without_a_count_is_unknown_never_zero(usage: object) -> None:
    assert read_usage(usage) is None


@pytest.mark.parametrize(
    "completion", [None, -1, "x", True, [], 1e30, 9 * 10**18, float("inf"), "1e400", "-3", "inf", "nan"]
)
def test_a_completion_that_is_no_count_makes_the_usage_uncertain(completion: object) -> None:
    assert read_usage({"prompt_tokens": 9, "completion_tokens": completion}) == Usage(9, 0, certain=False)


def test_calls_without_an_output_need_no_completion() -> None:
    assert read_usage({"prompt_tokens": 9}, generates=False) == Usage(9, 0)


def test_the_plain_shape_is_believed_only_if_its_total_agrees() -> None:
    assert read_usage({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}) == Usage(9, 3)
    assert read_usage({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 20}) == Usage(9, 11)
    assert read_usage({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 5}) == Usage(9, 3)
    assert read_usage({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": None}) == Usage(9, 3)


def test_a_part_is_never_more_than_its_whole() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 30}}
    contradiction = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, **details}
    assert read_usage(contradiction) == Usage(9, 33, reasoning_tokens=30)


def test_the_model_that_answered_is_told_where_its_word_counts() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    dialect = UsageDialect(tells_model=True)
    assert read_usage(usage, {"model": "other"}, dialect) == Usage(9, 3, model="other")
    assert read_usage(usage, {"model": "other"}) == Usage(9, 3)
    for nonsense in (7, None, "x" * 300, "a\nb"):
        assert read_usage(usage, {"model": nonsense}, dialect) == Usage(9, 3)


def tally(*usages: dict[str, Any], dialect: UsageDialect = PLAIN) -> Usage | None:
    """Return what a stream says that tells these usages one after the other."""
    counted = UsageTally(dialect)
    for usage in usages:
        counted.add(usage, {})
    return counted.usage()


def test_counts_of_a_stream_are_merged_by_maximum_down_to_their_details() -> None:
    assert tally(
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}},
        {
            "prompt_tokens": 8,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": None},
        },
        {"completion_tokens": "2", "prompt_tokens_details": None},
    ) == Usage(9, 3, cached_tokens=4)


def test_two_counts_without_a_prompt_are_still_sums_if_they_grow() -> None:
    growing = [{"completion_tokens": count} for count in (2, 5, 9)]
    assert tally({"prompt_tokens": 7, "completion_tokens": 1}, *growing) == Usage(7, 9)


def test_usage_is_the_latest_until_content_follows() -> None:
    monitor = provider_for(CATALOGUE["generic"]).stream_monitor("chat", 1)
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    text = {"choices": [{"index": 0, "delta": {"content": "x"}}]}
    assert not monitor.usage_is_latest
    monitor.check(b"", orjson.dumps({"choices": [], "usage": usage}))
    assert monitor.usage_is_latest
    monitor.check(b"", orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    assert monitor.usage_is_latest
    monitor.check(b"", orjson.dumps(text))
    assert not monitor.usage_is_latest
    monitor.check(b"", orjson.dumps({**text, "usage": usage}))
    assert monitor.usage_is_latest


def test_a_member_with_usage_that_is_no_object_is_passed_over() -> None:
    for member in (None, 7, [], [3], "x", {"usage": 7}):
        monitor = provider_for(CATALOGUE["generic"]).stream_monitor("chat", 1)
        for place in EVERYWHERE.elsewhere:
            event = {"choices": [{"index": 0, "delta": {"content": "x"}}], place: member}
            monitor.check(b"", orjson.dumps(event))
        assert monitor.usage is None


@pytest.mark.parametrize(
    ("value", "uses"), [(3, 3), (3.0, 3), (2.5, 3), ("3", 3), (10**9, 10**6), ("9" * 40, 10**6), (10**18, 10**6)]
)
def test_uses_of_tools_are_read_however_they_are_written(value: object, uses: int) -> None:
    anthropic = read_usage({"input_tokens": 9, "output_tokens": 3, "server_tool_use": {"web_search_requests": value}})
    perplexity = read_usage({"prompt_tokens": 9, "completion_tokens": 3, "num_search_queries": value})
    assert anthropic is not None
    assert perplexity is not None
    assert (anthropic.calls, perplexity.calls) == ((("web_search", uses),), (("num_search_queries", uses),))


@pytest.mark.parametrize("value", [0, -1, -2.0, True, None, "", "three", "-3", float("inf"), float("nan"), [3], 1e300])
def test_what_is_no_count_is_no_use_of_a_tool(value: object) -> None:
    usage = read_usage({"input_tokens": 9, "output_tokens": 3, "server_tool_use": {"web_search_requests": value}})
    assert usage == Usage(9, 3)
