"""The Python judges: client libraries that read an answer and tell what they saw. Runs in .venv-judges.

One job per line comes in, one verdict per line goes out, both as JSON:

    {"id", "judge", "way", "base", "model", "protocol", "stream", "request"}
    {"id", "content", "finish", "error", "object"}

`content` is all that a user of the library sees of the answer, `finish` how the library says that it ended, `error` the
exception that it raised, and `object` what it built (asked for with `"object": true`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from langchain_openai import OpenAI as CompletionsOpenAI

TIMEOUT_S = 30.0
Job = dict[str, Any]


class Seen:
    """What a job has seen so far; it stays when the library raises."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.finish: list[str] = []
        self.built: Any = None

    def text(self, value: object) -> None:
        """Note content, None and empty pieces left out; LangChain gives blocks, of which one may hold an empty text."""
        if isinstance(value, list):
            value = [block for block in value if not (isinstance(block, dict) and block.get("text") == "")]
        if value:
            self.content.append(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))

    def finished(self, value: object) -> None:
        """Note a reason to finish."""
        if value:
            self.finish.append(str(value))


@cache
def _openai(base: str) -> Any:  # the jobs ask for whatever the libraries offer
    return openai.OpenAI(base_url=base + "/v1", api_key="k", timeout=TIMEOUT_S, max_retries=0)


@cache
def _anthropic(base: str) -> Any:
    return anthropic.Anthropic(base_url=base, api_key="k", timeout=TIMEOUT_S, max_retries=0)


def _dump(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


# openai-python


def _chat_choice(seen: Seen, choice: Any) -> None:
    said = getattr(choice, "delta", None) or getattr(choice, "message", None)
    if said is not None:
        extra = said.model_extra or {}
        seen.text(extra.get("reasoning_content"))
        seen.text(said.content)
        seen.text(said.refusal)
        for call in said.tool_calls or ():
            function = getattr(call, "function", None)
            if function is not None:
                seen.text(function.name)
                seen.text(function.arguments)
    seen.finished(choice.finish_reason and f"{choice.index}:{choice.finish_reason}")


def openai_chat(job: Job, seen: Seen) -> None:
    """Read a chat completion, whole or as chunks."""
    client = _openai(job["base"])
    answer = client.chat.completions.create(model=job["model"], stream=job["stream"], **job["request"])
    seen.built = built = []
    for part in answer if job["stream"] else [answer]:
        built.append(_dump(part))
        for choice in part.choices or ():
            _chat_choice(seen, choice)


def openai_chat_helper(job: Job, seen: Seen) -> None:
    """Read a chat completion with the library's own stream helper."""
    request = {"model": job["model"], **job["request"]}
    with _openai(job["base"]).chat.completions.stream(**request) as stream:
        for event in stream:
            if event.type == "content.delta":
                seen.text(event.delta)
        final = stream.get_final_completion()
    seen.content.clear()
    for choice in final.choices:
        _chat_choice(seen, choice)
    seen.built = _dump(final)


def openai_completions(job: Job, seen: Seen) -> None:
    """Read a text completion."""
    answer = _openai(job["base"]).completions.create(model=job["model"], stream=job["stream"], **job["request"])
    seen.built = built = []
    for part in answer if job["stream"] else [answer]:
        built.append(_dump(part))
        for choice in part.choices or ():
            seen.text(choice.text)
            seen.finished(choice.finish_reason)


ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


def openai_responses(job: Job, seen: Seen) -> None:
    """Read an answer of the Responses API, whole or as events."""
    answer = _openai(job["base"]).responses.create(model=job["model"], stream=job["stream"], **job["request"])
    if not job["stream"]:
        seen.built = _dump(answer)
        seen.text(answer.output_text)
        for item in answer.output:
            if item.type == "function_call":
                seen.text(item.name)
                seen.text(item.arguments)
        seen.finished(answer.status)
        return
    seen.built = built = []
    for event in answer:
        built.append(_dump(event))
        if event.type.endswith(".delta"):
            seen.text(event.delta)
        if event.type in ENDS:
            seen.finished(event.type)


def openai_responses_helper(job: Job, seen: Seen) -> None:
    """Read an answer of the Responses API with the library's own stream helper."""
    with _openai(job["base"]).responses.stream(model=job["model"], **job["request"]) as stream:
        for event in stream:
            if event.type.endswith(".delta"):
                seen.text(event.delta)
        final = stream.get_final_response()
    seen.finished(final.status)
    seen.built = _dump(final)


# anthropic-python


def _message_block(seen: Seen, block: Any) -> None:
    for name in ("thinking", "text", "partial_json", "input"):
        seen.text(getattr(block, name, None))


def anthropic_messages(job: Job, seen: Seen) -> None:
    """Read a message, whole or as events."""
    answer = _anthropic(job["base"]).messages.create(model=job["model"], stream=job["stream"], **job["request"])
    if not job["stream"]:
        seen.built = _dump(answer)
        for block in answer.content:
            _message_block(seen, block)
        seen.finished(answer.stop_reason)
        return
    seen.built = built = []
    for event in answer:
        built.append(_dump(event))
        if event.type == "content_block_delta":
            _message_block(seen, event.delta)
        if event.type == "message_delta":
            seen.finished(event.delta.stop_reason)


def anthropic_messages_helper(job: Job, seen: Seen) -> None:
    """Read a message with the library's own stream helper."""
    with _anthropic(job["base"]).messages.stream(model=job["model"], **job["request"]) as stream:
        for text in stream.text_stream:
            seen.text(text)
        final = stream.get_final_message()
    seen.content.clear()
    for block in final.content:
        _message_block(seen, block)
    seen.finished(final.stop_reason)
    seen.built = _dump(final)


# LangChain


@cache
def _chat_openai(base: str, responses: bool) -> Any:
    return ChatOpenAI(
        model="-", base_url=base + "/v1", api_key="k", timeout=TIMEOUT_S, max_retries=0, use_responses_api=responses
    )


@cache
def _completions_openai(base: str) -> Any:
    return CompletionsOpenAI(model="-", base_url=base + "/v1", api_key="k", timeout=TIMEOUT_S, max_retries=0)


@cache
def _chat_anthropic(base: str) -> Any:
    return ChatAnthropic(
        model="-", base_url=base, api_key="k", timeout=TIMEOUT_S, max_retries=0, max_tokens=64, stream_usage=True
    )


def _langchain(model: Any, job: Job, seen: Seen) -> None:
    asked = {name: value for name, value in job["request"].items() if name not in ("messages", "input", "max_tokens")}
    bound = model.bind(model=job["model"], **asked)
    prompt = job["request"].get("input") or job["request"]["messages"][-1]["content"]
    seen.built = built = []
    parts: Iterator[Any] = bound.stream(prompt) if job["stream"] else iter([bound.invoke(prompt)])
    for part in parts:
        dumped = _dump(part)
        built.append(dumped)
        seen.text(part.additional_kwargs.get("reasoning_content"))
        seen.text(part.content)
        for call in getattr(part, "tool_call_chunks", ()) or part.tool_calls:
            seen.text(call["name"])
            seen.text(call["args"])
        for name in ("finish_reason", "stop_reason", "status"):
            seen.finished(part.response_metadata.get(name))


def langchain_chat(job: Job, seen: Seen) -> None:
    """Read a chat completion through ChatOpenAI."""
    _langchain(_chat_openai(job["base"], False), job, seen)


def langchain_completions(job: Job, seen: Seen) -> None:
    """Read a text completion through OpenAI."""
    bound = _completions_openai(job["base"]).bind(model=job["model"])
    prompt = job["request"]["prompt"]
    for part in bound.stream(prompt) if job["stream"] else [bound.invoke(prompt)]:
        seen.text(part)
    seen.built = "".join(seen.content)


def langchain_responses(job: Job, seen: Seen) -> None:
    """Read an answer of the Responses API through ChatOpenAI."""
    _langchain(_chat_openai(job["base"], True), job, seen)


def langchain_messages(job: Job, seen: Seen) -> None:
    """Read a message through ChatAnthropic."""
    _langchain(_chat_anthropic(job["base"]), job, seen)


WAYS: dict[tuple[str, str, str], Callable[[Job, Seen], None]] = {
    ("openai-python", "create", "chat"): openai_chat,
    ("openai-python", "helper", "chat"): openai_chat_helper,
    ("openai-python", "create", "completions"): openai_completions,
    ("openai-python", "create", "responses"): openai_responses,
    ("openai-python", "helper", "responses"): openai_responses_helper,
    ("anthropic-python", "create", "messages"): anthropic_messages,
    ("anthropic-python", "helper", "messages"): anthropic_messages_helper,
    ("langchain", "create", "chat"): langchain_chat,
    ("langchain", "create", "completions"): langchain_completions,
    ("langchain", "create", "responses"): langchain_responses,
    ("langchain", "create", "messages"): langchain_messages,
}


def judge(job: Job) -> dict[str, Any]:
    """Do one job."""
    seen, error = Seen(), None
    try:
        WAYS[job["judge"], job["way"], job["protocol"]](job, seen)
    except Exception as raised:
        error = f"{type(raised).__name__}: {str(raised)[:160]}"
    return {
        "id": job["id"],
        "content": "".join(seen.content),
        "finish": ",".join(seen.finish),
        "error": error,
        "object": seen.built if job.get("object") else None,
    }


def main() -> None:
    """Do jobs until the input ends."""
    for line in sys.stdin:
        print(json.dumps(judge(json.loads(line)), default=str), flush=True)


if __name__ == "__main__":
    main()
