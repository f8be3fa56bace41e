"""The real `openai` SDK talks through the router to real vLLM on the CPU with the demo model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from tests.e2e.conftest import Front
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing.processes import eventually
from spillway_server.demo_model.documents import Document, exact, generate, json_schema, prompt

pytestmark = pytest.mark.engine

SCHEMA = json_schema()
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "report", "parameters": SCHEMA, "strict": True}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "report"}}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "report", "schema": SCHEMA}}
TOKENS = 200


@pytest.fixture(scope="module")
def client(front: Front) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{front.url}/v1", api_key="not-needed", timeout=120, max_retries=0) as client:
        yield client


def ask(client: OpenAI, document: Document, **more: Any) -> Any:
    """Send one document with greedy decoding."""
    messages: Any = prompt(document.text)
    return client.chat.completions.create(model="auto", messages=messages, temperature=0, max_tokens=TOKENS, **more)


def text(answer: Any) -> str:
    content = answer.choices[0].message.content
    assert isinstance(content, str)
    return content


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_an_answer_names_its_backend(client: OpenAI, documents: list[Document]) -> None:
    messages: Any = prompt(documents[0].text)
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=messages, max_tokens=TOKENS)
    headers = raw.headers
    assert headers["x-request-id"].startswith("req_")
    assert (headers["x-spillway-backend"], headers["x-spillway-model"]) == ("local", "demo")
    assert (headers["x-spillway-decision"], headers["x-spillway-attempts"]) == ("local", "1")
    assert float(headers["x-spillway-overhead-ms"]) > 0
    assert float(headers["x-spillway-cost-usd"]) == 0
    assert len(headers["x-spillway-policy"]) == 12
    answer = raw.parse()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 10
    assert "cost" not in (answer.usage.model_extra or {})
    record = client.get(f"/requests/{headers['x-request-id']}", cast_to=object)
    assert isinstance(record, dict)
    assert (record["backend"], record["decision"], record["attempts"][0]["outcome"]) == ("local", "local", "ok")
    assert record["attempts"][0]["usage"]["completion_tokens"] == answer.usage.completion_tokens


def test_clean_documents_are_answered_exactly(client: OpenAI, documents: list[Document]) -> None:
    right = [exact(text(ask(client, document)), document.truth) for document in documents]
    assert sum(right) >= len(right) - 1, "the demo model reads 97% of clean documents"


def test_usage_cost_in_a_whole_answer_when_the_header_asks(client: OpenAI, documents: list[Document]) -> None:
    answer = ask(client, documents[0], extra_headers={"x-spillway-usage-cost": "true"})
    assert answer.usage.cost == 0


def test_a_stream_is_the_same_answer(client: OpenAI, documents: list[Document]) -> None:
    whole = text(ask(client, documents[1]))
    chunks = list(ask(client, documents[1], stream=True))
    assert joined(chunks) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert len(chunks) > 10
    assert all(chunk.usage is None for chunk in chunks), "usage that the client did not ask for stays away"


def test_a_stream_with_usage_reports_its_cost(client: OpenAI, documents: list[Document]) -> None:
    chunks = list(ask(client, documents[1], stream=True, stream_options={"include_usage": True}))
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert len(with_usage) == 1
    assert with_usage[0] is chunks[-1]
    assert with_usage[0].choices == []
    usage = with_usage[0].usage
    assert usage is not None
    assert usage.completion_tokens > 10
    assert (usage.model_extra or {})["cost"] == 0


@pytest.mark.limit_s(300)
async def test_the_async_client_sends_requests_concurrently(front: Front, documents: list[Document]) -> None:
    async def one(client: AsyncOpenAI, document: Document, *, stream: bool) -> str:
        messages: Any = prompt(document.text)
        call: Any = client.chat.completions.create
        answer = await call(model="auto", messages=messages, temperature=0, max_tokens=TOKENS, stream=stream)
        return joined([chunk async for chunk in answer]) if stream else text(answer)

    async with AsyncOpenAI(base_url=f"{front.url}/v1", api_key="x", timeout=120, max_retries=0) as client:
        answers = await asyncio.gather(*(one(client, d, stream=i % 2 == 0) for i, d in enumerate(documents)))
    right = [exact(answer, document.truth) for answer, document in zip(answers, documents, strict=True)]
    assert sum(right) >= len(right) - 1


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_tools_offered_and_not_used(client: OpenAI, documents: list[Document], choice: str) -> None:
    message = ask(client, documents[0], tools=[TOOL], tool_choice=choice).choices[0].message
    assert not message.tool_calls
    jsonschema.validate(json.loads(message.content), SCHEMA)


def test_a_named_tool_is_called_with_arguments_of_its_schema(client: OpenAI, documents: list[Document]) -> None:
    document = documents[0]
    (call,) = ask(client, document, tools=[TOOL], tool_choice=NAMED).choices[0].message.tool_calls
    assert call.function.name == "report"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_a_streamed_tool_call(client: OpenAI, documents: list[Document]) -> None:
    chunks = list(ask(client, documents[0], tools=[TOOL], tool_choice=NAMED, stream=True))
    calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()]
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    assert calls[0].function.name == "report"
    jsonschema.validate(json.loads(arguments), SCHEMA)


@pytest.mark.parametrize("noise", ["clean", "heavy", "truncated"])
def test_a_json_schema_binds_the_answer(client: OpenAI, noise: str) -> None:
    answer = ask(client, generate(10_000_100, noise), response_format=FORMAT)
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(text(answer)), SCHEMA)


def test_logprobs_are_sent_only_when_requested(client: OpenAI, documents: list[Document]) -> None:
    logprobs = ask(client, documents[0], logprobs=True, top_logprobs=2).choices[0].logprobs
    assert logprobs is not None
    assert all(token.logprob <= 0 and len(token.top_logprobs) >= 2 for token in logprobs.content)
    assert ask(client, documents[0]).choices[0].logprobs is None


def test_requested_confidence_comes_in_a_header_without_logprobs(client: OpenAI, documents: list[Document]) -> None:
    messages: Any = prompt(documents[0].text)
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=messages, max_tokens=TOKENS, extra_headers={"x-spillway-min-confidence": "0"}
    )
    assert 0 < float(raw.headers["x-spillway-confidence"]) <= 1
    assert raw.parse().choices[0].logprobs is None


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model="auto", prompt="AL: 23", max_tokens=5, logprobs=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].logprobs is not None
    chunks = list(client.completions.create(model="auto", prompt="AL: 23", max_tokens=5, temperature=0, stream=True))
    whole = client.completions.create(model="auto", prompt="AL: 23", max_tokens=5, temperature=0)
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text


def test_an_endpoint_that_the_engine_lacks_is_a_404_and_does_not_take_it_out(
    client: OpenAI, documents: list[Document]
) -> None:
    for _ in range(8):
        with pytest.raises(openai.NotFoundError, match=r"No backend of this alias has this endpoint") as caught:
            client.embeddings.create(model="auto", input="AL 23.4")
        assert caught.value.code == "model_not_found"
    assert ask(client, documents[0]).choices[0].finish_reason == "stop"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["auto", "local/demo"]
    assert client.models.retrieve("local/demo").owned_by == "spillway"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_a_pinned_backend(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="local/demo", messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert raw.headers["x-spillway-decision"] == "pinned"


def test_responses_pass_through(client: OpenAI) -> None:
    answer = client.responses.create(model="auto", input="hello", max_output_tokens=8)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 8
    assert answer.output_text
    kinds = [e.type for e in client.responses.create(model="auto", input="hello", max_output_tokens=8, stream=True)]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert "response.output_text.delta" in kinds


def test_messages_pass_through(client: OpenAI) -> None:
    body = {"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
    answer = client.post("/messages", body=body, cast_to=object)
    assert isinstance(answer, dict)
    assert (answer["type"], answer["usage"]["output_tokens"]) == ("message", 8)


def test_unknown_fields_pass_through(client: OpenAI, documents: list[Document]) -> None:
    more = {"top_k": 1, "min_p": 0.0, "made_up_field": {"deep": [1, 2]}, "user": "someone"}
    plain, with_more = text(ask(client, documents[2])), text(ask(client, documents[2], extra_body=more))
    assert with_more == plain
    # Only vLLM knows this field: without it, the answer would have as many tokens as fit.
    stopped = ask(client, documents[2], extra_body={"stop_token_ids": list(range(512))})
    assert stopped.usage.completion_tokens == 1


def test_errors_are_the_sdks_own(client: OpenAI, documents: list[Document]) -> None:
    messages: Any = prompt(documents[0].text)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=messages)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert "auto" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as ours:
        client.chat.completions.create(model="auto", messages=[])
    assert (ours.value.code, ours.value.param) == ("invalid_request", "messages")
    with pytest.raises(openai.BadRequestError, match="temperature") as engines:
        client.chat.completions.create(model="auto", messages=messages, temperature=-3)
    assert engines.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.BadRequestError, match="context length") as too_long:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "1 " * 3000}])
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        list(client.chat.completions.create(model="auto", messages=messages, temperature=-3, stream=True))


def test_keys(locked: Front) -> None:
    def create_key(role: str) -> str:
        done = CliRunner().invoke(app, ["keys", "create", role, "--role", role, "-c", str(locked.config), "--json"])
        assert done.exit_code == 0, done.output
        return str(json.loads(done.stdout)["key"])

    def say(key: str) -> Any:
        with OpenAI(base_url=f"{locked.url}/v1", api_key=key, timeout=120, max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "hello"}]
            return client.chat.completions.create(model="auto", messages=messages, max_tokens=4)

    for wrong in ("none", "sk-spill-000000000000-" + "0" * 64):
        with pytest.raises(openai.AuthenticationError) as refused:
            say(wrong)
        assert refused.value.code == "invalid_api_key"
    viewer, inference = create_key("viewer"), create_key("inference")
    answer = eventually(lambda: say(inference), openai.AuthenticationError)
    assert answer.usage.completion_tokens == 4
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        say(viewer)
    assert forbidden.value.code == "permission_denied"


def test_chat_of_the_command_line(front: Front, documents: list[Document]) -> None:
    question = str(prompt(documents[0].text)[0]["content"])
    one = CliRunner().invoke(app, ["chat", question, "--url", front.url, "--json", "--private"])
    assert one.exit_code == 0, one.output
    result = json.loads(one.stdout)
    assert result["text"].startswith('{"id":"')  # the engine samples, as nothing sets a temperature
    assert (result["backend"], result["model"], result["decision"], result["cost_usd"]) == (
        "local",
        "demo",
        "local",
        "0",
    )
    assert 0 < result["first_token_s"] < result["total_s"]
    piped = CliRunner().invoke(app, ["chat", "-", "--url", front.url, "--max-tokens", "4"], input="hello")
    assert "+ 4 tokens  $0.0000  first token" in piped.stdout


def test_a_conversation_on_the_command_line(front: Front) -> None:
    lines = "hello\n\nmore\n/reset\nagain\n/quit\n"
    done = CliRunner().invoke(app, ["chat", "--url", front.url, "--max-tokens", "4"], input=lines)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("local: local / demo") == 3
    refused = CliRunner().invoke(app, ["chat", "--url", front.url, "--model", "gpt-9"], input="hello\n")
    assert refused.exit_code == 0
    assert "404 model_not_found" in refused.stdout
