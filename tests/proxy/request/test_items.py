"""The items of a request: what it contains besides a plain conversation, by names that lists can hold."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_router.core.routing.model import Endpoint
from spillway_router.proxy.request.items import MOST_UNKNOWN, hides_input, request_items, requested_mode


def names(endpoint: Endpoint, **body: Any) -> list[str]:
    return sorted(item.name for item in request_items(endpoint, body))


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"type": "text", "text": "x"}, "part:text"),
        ({"text": "x"}, None),
        ({"kind": "x"}, "part:(unnamed)"),
        ({"type": 7}, "part:(unnamed)"),
        ({"type": "file", "file": {"file_id": "f"}}, "part:file/file_id"),
        ({"type": "file", "file": {"file_id": "f", "file_data": "x"}}, "part:file/(unnamed)"),
        ({"type": "input_file", "file_url": "https://x"}, "part:input_file/file_url"),
        ({"type": "document", "source": {"type": "url", "url": "https://x"}}, "part:document/url"),
        (
            {"type": "document", "source": {"type": "text"}, "citations": {"enabled": True}},
            "part:document/text+citations",
        ),
        ({"type": "document", "source": {"type": "text"}, "citations": {"enabled": False}}, "part:document/text"),
        ({"type": "document"}, "part:document/(unnamed)"),
    ],
)
def test_a_part_is_named_after_its_kind_and_how_it_is_given(part: dict[str, Any], name: str | None) -> None:
    assert names("messages", messages=user(part)) == ([] if name is None else [name])


def test_parts_are_seen_however_deep_they_are() -> None:
    picture = {"type": "video_url", "video_url": {"url": "https://x"}}
    document = {"type": "document", "source": {"type": "content", "content": [picture]}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [document]}
    assert names("messages", messages=user(result)) == ["part:document/content", "part:tool_result", "part:video_url"]
    output = {"type": "function_call_output", "call_id": "a", "output": [picture]}
    assert names("responses", input=[output]) == ["item:function_call_output", "part:video_url"]
    assert names("messages", messages=user(), system=[picture]) == ["part:video_url", "system"]
    assert names("embeddings", input=[picture]) == ["part:video_url"]


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"googleSearch": {}}, "tool:googleSearch"),
        ({"type": "function", "function": {"name": "f"}, "google_search": {}}, "tool:google_search"),
        ({"name": "f", "input_schema": {}, "urlContext": {}}, "tool:urlContext"),
        ({"function_declarations": [{"name": "f"}]}, "tool:(unnamed)"),
        ({}, "tool:(unnamed)"),
        ({"type": "builtin_function", "function": {"name": "$web_search"}}, "tool:builtin_function"),
        ({"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral"}}, "tool:function"),
        ({"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}}, "tool:function"),
        ({"type": "function", "name": "f", "parameters": {}, "strict": True}, "tool:function"),
    ],
)
def test_a_tool_is_a_function_only_if_it_has_nothing_else(tool: dict[str, Any], name: str) -> None:
    assert names("chat", messages=user(), tools=[tool]) == sorted(["tools", name])


def test_a_key_of_an_object_is_named_with_its_value_where_a_list_names_the_value() -> None:
    assert names("responses", reasoning={"mode": "pro", "effort": "high"}) == ["reasoning.effort", "reasoning.mode=pro"]
    assert names("responses", reasoning={"mode": "standard", "summary": None}) == ["reasoning.mode=standard"]
    assert names("chat", messages=user(), reasoning={"mode": {"x": 1}}) == ["reasoning.mode=(unnamed)"]
    assert names("chat", messages=user(), reasoning="pro") == ["reasoning"]


def test_a_tool_is_named_after_its_type_without_the_date() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    limited = {**search, "max_uses": 4}
    tools = [search, limited, {"name": "f"}, {"type": "function"}, {"type": "function"}, "?"]
    items = {item.name: item for item in request_items("messages", {"messages": user(), "tools": tools})}
    assert items.keys() == {"tools", "tool:web_search", "tool:function", "tool:(unnamed)"}
    assert (items["tool:web_search"].uses, items["tool:web_search"].unlimited) == (4, 1)
    assert items["tool:function"].count == 3
    assert names("chat", messages=user(), tools=[]) == []


def test_fields_are_named_with_their_value_or_key_where_a_list_does_so() -> None:
    assert names("chat", messages=user(), modalities=["text"], temperature=0.1, seed=None) == [
        "modalities=text",
        "temperature",
    ]
    assert names("chat", messages=user(), provider={"order": ["a"], "sort": None, "new": 1}) == [
        "provider.new",
        "provider.order",
    ]
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    assert names("messages", messages=user(), context_management=edits) == ["context_management=clear_tool_uses"]
    assert names("messages", messages=user(), speed="fast", inference_geo="us") == []  # services of the tariff


def test_a_message_with_more_than_text_is_noticed() -> None:
    spoken = {"role": "assistant", "audio": {"id": "a"}, "refusal": None}
    assert names("chat", messages=[spoken]) == ["messages.audio"]


def test_names_of_no_list_are_cleaned_and_few() -> None:
    fields = {f"field number {number}": 1 for number in range(30)}
    items = request_items("chat", {"messages": user(), **fields})
    assert [(item.name, item.where) for item in items] == [("(unnamed)", "(unnamed)")]
    many = request_items("chat", {"messages": user(), **{f"x{number}": 1 for number in range(30)}})
    assert [item.name for item in many] == [f"x{number}" for number in range(MOST_UNKNOWN)]


def test_only_what_bytes_do_not_show_hides_input() -> None:
    def hides(**body: Any) -> bool:
        return hides_input(request_items("chat", {"messages": user({"type": "text", "text": "x"}), **body}))

    assert not hides(temperature=0.1, brand_new=1)
    assert hides(previous_response_id="r")
    assert hides(messages=user({"type": "video_url"}))


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        ({}, ""),
        ({"service_tier": "auto", "speed": "standard", "inference_geo": "global"}, ""),
        ({"service_tier": "flex"}, "flex"),
        ({"speed": "fast", "inference_geo": "us"}, "fast+us"),
        ({"speed": 3}, ""),
    ],
)
def test_modes_are_one_service(body: dict[str, Any], mode: str) -> None:
    assert requested_mode(body) == mode


@pytest.mark.parametrize(
    ("container", "name"),
    [
        ({"type": "auto"}, "tool:code_interpreter"),
        ({"type": "auto", "memory_limit": "64g"}, "tool:code_interpreter/memory_limit"),
        ("cntr_68af7bf8a0b0", "tool:code_interpreter/container_id"),
    ],
)
def test_a_container_is_named_after_what_decides_its_price(container: object, name: str) -> None:
    tool = {"type": "code_interpreter", "container": container}
    assert names("responses", input="x", tools=[tool]) == sorted([name, "tools"])
