"""The fields, content parts, tools and shapes of requests that the hold must cover, or that the router must refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


@dataclass(frozen=True, slots=True)
class FieldCase:
    """One request. `refused`: whether nothing bounds its cost, so that a budget must refuse it with a 400."""

    name: str
    backend: str
    path: str
    body: Mapping[str, Any]
    refused: bool = False


def _user(*parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}]


_HI = [{"role": "user", "content": "Which eye is it?"}]
_PDF_PART = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64," + "A" * 4000},
}
_PDF_BY_URL = {"type": "input_file", "file_url": "https://example.com/y.pdf"}
_CONTAINER = {"type": "code_interpreter", "container": {"type": "auto"}}
_MADE_CONTAINER = {"type": "code_interpreter", "container": "cntr_68af7bf8a0b0819194"}
_LARGE_CONTAINER = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}
_SEARCH = {"type": "web_search"}
_FILE_SEARCH = {"type": "file_search", "vector_store_ids": ["v"]}
_FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_FLAT_FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
_PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def _chat(name: str, backend: str, refused: bool = False, **fields: Any) -> FieldCase:
    return FieldCase(name, backend, CHAT, {"messages": _HI, **fields}, refused=refused)


def _responses(name: str, refused: bool = False, backend: str = "gpt", **fields: Any) -> FieldCase:
    return FieldCase(name, backend, RESPONSES, {"input": "hi", **fields}, refused=refused)


def _messages(name: str, refused: bool = False, backend: str = "ant", **fields: Any) -> FieldCase:
    return FieldCase(name, backend, MESSAGES, {"messages": _HI, "max_tokens": 50, **fields}, refused=refused)


def _document(**source: Any) -> list[dict[str, Any]]:
    return _user({"type": "document", "source": source})


def _cached(**lifetime: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "w " * 900, "cache_control": {"type": "ephemeral", **lifetime}}]


_EVERYWHERE = tuple(
    case
    for backend in ("gpt", "ant", "groq", "tog", "orr", "mine")
    for case in (
        _chat("plain", backend),
        _chat("max_tokens", backend, max_tokens=20),
        _chat("max_completion_tokens alone", backend, max_completion_tokens=1),
        _chat("both bounds", backend, max_tokens=1, max_completion_tokens=900),
        _chat("sampling", backend, temperature=0.1, top_p=0.9, seed=1, stop=["x"], max_tokens=9),
        _chat("a function", backend, tools=[_FUNCTION], max_tokens=1),
        _chat("ten functions", backend, tools=[_FUNCTION] * 10, max_tokens=1),
        _chat("prediction", backend, prediction={"type": "content", "content": "é" * 900}, max_tokens=16),
        _chat("an unknown field", backend, refused=True, brand_new_thing={"a": 1}),
        _chat("video", backend, True, messages=_user({"type": "video_url", "video_url": {"url": "https://x/a.mp4"}})),
        _chat("audio in", backend, True, messages=_user({"type": "input_audio", "input_audio": {"data": "AAAA"}})),
        _chat("audio out", backend, True, modalities=["text", "audio"], audio={"voice": "alloy"}),
        _chat("an earlier spoken answer", backend, True, messages=[{"role": "assistant", "audio": {"id": "a"}}, *_HI]),
        _chat("web_search_options", backend, True, web_search_options={"search_context_size": "high"}),
        _chat("browser_search", backend, True, tools=[{"type": "browser_search"}], max_tokens=100),
        _chat("a tool of the provider", backend, True, tools=[{"type": "openrouter:web_search"}]),
        _chat("mcp", backend, True, tools=[{"type": "mcp", "server_url": "https://x"}]),
        # searches of other providers, as gateways in front of them take them
        _chat("Gemini's search", backend, True, tools=[{"googleSearch": {}}]),
        _chat("Gemini's search beside a function", backend, True, tools=[{**_FUNCTION, "googleSearch": {}}]),
        _chat(
            "Kimi's search", backend, True, tools=[{"type": "builtin_function", "function": {"name": "$web_search"}}]
        ),
        _chat("z.ai's search", backend, True, tools=[{"type": "web_search", "web_search": {"enable": True}}]),
        _chat("Grok's search", backend, True, search_parameters={"mode": "on", "max_search_results": 20}),
        _chat("Qwen's search", backend, True, enable_search=True),
        _chat("Baidu's search", backend, True, web_search={"enable": True}),
        _chat("Cohere's search", backend, True, connectors=[{"id": "web-search"}]),
        _chat("Venice's search", backend, True, venice_parameters={"enable_web_search": "on"}),
        _chat("a gateway's own fields", backend, True, extra_body={"google": {"tools": [{"google_search": {}}]}}),
        # what multiplies tokens
        _chat("high effort", backend, reasoning_effort="high", max_tokens=16),
        _chat("verbosity", backend, verbosity="high", max_tokens=16),
        _chat("candidate_count", backend, True, candidate_count=4, max_tokens=16),
        _chat("num_generations", backend, True, num_generations=4, max_tokens=16),
        _chat("num_return_sequences", backend, True, num_return_sequences=4, max_tokens=16),
        _chat("a mode of several passes", backend, True, reasoning={"mode": "pro"}, max_tokens=16),
        _chat("an unknown service", backend, True, service_tier="ultrafast", max_tokens=16),
    )
)

CASES: tuple[FieldCase, ...] = (
    *_EVERYWHERE,
    # chat
    *(_chat("a picture", backend, messages=_user(_PICTURE), max_tokens=1) for backend in ("gpt", "ant", "mine")),
    _chat("n", "gpt", n=7, max_tokens=10),
    _chat("n", "mine", n=7, max_tokens=10),
    _chat("best_of", "mine", best_of=9, max_tokens=30),
    _chat("a schema", "gpt", response_format=_SCHEMA, max_tokens=10),
    _chat("legacy functions", "gpt", functions=[{"name": "f", "parameters": {}}], max_tokens=10),
    _chat("a file by id", "gpt", messages=_user({"type": "file", "file": {"file_id": "file-1"}}), max_tokens=10),
    _chat(
        "a small PDF",
        "gpt",
        messages=_user(_PDF_PART),
        max_tokens=9,
    ),
    _chat("a PDF", "orr", True, messages=_user(_PDF_PART)),
    _chat("a PDF", "mine", True, messages=_user({"type": "file", "file": {"file_id": "a"}})),
    _chat("priority", "gpt", service_tier="priority", max_tokens=10),
    _chat("flex without a price", "gpt", refused=True, service_tier="flex"),
    _chat("the account's default service", "gpt", service_tier="auto", max_tokens=10),
    _chat("a search model", "search", refused=True, max_tokens=10),
    _chat("models", "orr", models=["openai/o1-pro"], max_tokens=1000),
    _chat("route", "orr", models=["openai/o1-pro"], route="fallback", max_tokens=1000),
    _chat("plugins", "orr", refused=True, plugins=[{"id": "web", "max_results": 50}]),
    _chat("provider.order", "orr", provider={"order": ["dear"]}, max_tokens=1000),
    _chat("provider.max_price", "orr", provider={"max_price": {"prompt": 9, "completion": 9}, "order": ["dear"]}),
    _chat("preset", "orr", refused=True, preset="x"),
    *(_chat("reasoning", backend, reasoning={"max_tokens": 9000, "exclude": True}) for backend in ("orr", "mine")),
    _chat("reasoning in the usual mode", "orr", reasoning={"effort": "high", "mode": "standard"}, max_tokens=16),
    *(_chat("thinking", name, thinking={"type": "enabled"}, max_tokens=16) for name in ("ant", "tog", "orr", "mine")),
    # models with a fee for each request
    _chat("a search model with its fee", "pplx", max_tokens=16),
    _chat("a larger search", "pplx", True, web_search_options={"search_context_size": "high"}),
    _chat("a search of a kind", "pplx", True, search_mode="academic"),
    _chat("a search model without its fee", "bare", True, max_tokens=16),
    _chat("beam search", "mine", refused=True, use_beam_search=True),
    _chat("sampling of engines", "mine", top_k=1, min_p=0.1, repetition_penalty=1.1, max_tokens=5),
    # completions and embeddings
    FieldCase("best_of", "mine", COMPLETIONS, {"prompt": "hi", "max_tokens": 10, "best_of": 12}),
    FieldCase("many prompts", "mine", COMPLETIONS, {"prompt": ["hi"] * 20, "max_tokens": 10}),
    FieldCase("tokens", "mine", COMPLETIONS, {"prompt": [[1], [2], [3]], "max_tokens": 10}),
    FieldCase("a foreign bound", "mine", COMPLETIONS, {"prompt": "hi", "max_completion_tokens": 1}),
    FieldCase("no bound", "tog", COMPLETIONS, {"prompt": "hi"}),
    FieldCase("embeddings", "mine", EMBEDDINGS, {"input": ["hi"] * 10}),
    FieldCase(
        "embeddings of pictures", "mine", EMBEDDINGS, {"input": [{"type": "video_url", "video_url": "x"}]}, refused=True
    ),
    # responses
    _responses("plain", max_output_tokens=16),
    _responses("no bound"),
    _responses("previous_response_id", previous_response_id="resp_elsewhere", max_output_tokens=16),
    _responses("conversation", conversation="conv_1", max_output_tokens=16),
    _responses("a stored prompt", True, prompt={"id": "pmpt_1"}, max_output_tokens=16),
    _responses("item_reference", input=[{"type": "item_reference", "id": "msg_1"}], max_output_tokens=16),
    _responses("item_reference elsewhere", True, "mine", input=[{"type": "item_reference", "id": "m"}]),
    _responses("input_file by url", input=_user(_PDF_BY_URL), max_output_tokens=9),
    _responses("web_search", tools=[_SEARCH], max_output_tokens=16),
    _responses("web_search, two calls", tools=[_SEARCH], max_tool_calls=2, max_output_tokens=16),
    _responses("web_search_preview", tools=[{"type": "web_search_preview"}], max_output_tokens=16),
    _responses("file_search", tools=[_FILE_SEARCH], max_output_tokens=16),
    _responses("code_interpreter", tools=[_CONTAINER], max_output_tokens=16),
    _responses("a container made before", True, tools=[_MADE_CONTAINER], max_output_tokens=16),
    _responses(
        "a large container",
        True,
        tools=[_LARGE_CONTAINER],
    ),
    _responses("three tools", tools=[_SEARCH, _FILE_SEARCH, _FLAT_FUNCTION], max_tool_calls=3),
    _responses("image_generation", True, tools=[{"type": "image_generation"}]),
    _responses("mcp", True, tools=[{"type": "mcp", "server_url": "https://x"}]),
    _responses("background", True, background=True),
    _responses("reasoning", reasoning={"effort": "high", "summary": "auto"}, max_output_tokens=16),
    _responses("reasoning in the usual mode", reasoning={"effort": "low", "mode": "standard"}, max_output_tokens=16),
    *(
        _responses("reasoning in several passes", True, backend, reasoning={"mode": "pro"}, max_output_tokens=16)
        for backend in ("gpt", "orr", "mine")
    ),
    _responses("n", True, n=4),
    # messages
    _messages("plain"),
    _messages("a tool", tools=[{"name": "f", "input_schema": {"type": "object"}}], max_tokens=1),
    _messages("bash", tools=[{"type": "bash_20250124", "name": "bash"}], max_tokens=1),
    _messages("computer", tools=[{"type": "computer_20250124", "name": "computer"}], max_tokens=1),
    _messages("a document by url", messages=_document(type="url", url="https://x/y.pdf")),
    _messages("a document by file id", messages=_document(type="file", file_id="file_1")),
    _messages("a document as base64", messages=_document(type="base64", data="A" * 2000)),
    _messages("a document of text", messages=_document(type="text", data="some text")),
    _messages("web_search", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    _messages("web_search, ten uses", tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 10}]),
    _messages("web_fetch", tools=[{"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}]),
    _messages("code_execution", True, tools=[{"type": "code_execution_20250825", "name": "code_execution"}]),
    _messages("n", True, n=4),
    _messages("compaction", True, context_management={"edits": [{"type": "compact_20260112"}]}),
    _messages("context editing", context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
    _messages("mcp_servers", True, mcp_servers=[{"type": "url", "url": "https://x"}]),
    _messages("a container", True, container="c_1"),
    _messages("fast", True, speed="fast"),
    _messages("in the United States", inference_geo="us"),
    _messages("anywhere", inference_geo="global", speed="standard"),
    _messages(
        "a cache for five minutes",
        system=_cached(),
    ),
    _messages(
        "a cache for an hour",
        system=_cached(ttl="1h"),
    ),
    _messages("thinking", thinking={"type": "enabled", "budget_tokens": 40}),
    _messages("web_search elsewhere", True, "mine", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
)
