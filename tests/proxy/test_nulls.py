"""`null` stands for a field that is left out, in every protocol: client libraries send their unset options as null."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, routing, settings

CAP = "budgets: [{scope: all, period: day, limit_usd: '50'}]\n"
CHAT = """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata
modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key reasoning_effort response_format seed
service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
web_search_options model models provider best_of plugins route x_unknown"""
RESPONSES = """background conversation include instructions max_output_tokens max_tool_calls metadata tool_choice tools
parallel_tool_calls previous_response_id prompt reasoning service_tier store stream stream_options temperature text
top_logprobs truncation user"""
MESSAGES = """system metadata stop_sequences stream temperature thinking tool_choice tools top_k top_p container
context_management mcp_servers service_tier"""
COMPLETIONS = "best_of echo logprobs max_tokens n stop stream stream_options suffix user"
PART = {"role": "user", "content": "hi", "name": None, "tool_calls": None, "audio": None, "refusal": None}
NULLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [PART], **dict.fromkeys(CHAT.split())},
    "/v1/completions": {"prompt": "hi", **dict.fromkeys(COMPLETIONS.split())},
    "/v1/embeddings": {"input": "hi", **dict.fromkeys(("dimensions", "encoding_format", "user"))},
    "/v1/responses": {"input": "hi", **dict.fromkeys(RESPONSES.split())},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        **dict.fromkeys(MESSAGES.split()),
    },
}
ANSWER = Answer.json(
    {
        "id": "r",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "text": "hi", "finish_reason": "stop"}
        ],
        "data": [{"embedding": [0.1]}],
        "output": [],
        "status": "completed",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1},
    }
)


@pytest.mark.parametrize("path", NULLS)
async def test_every_option_may_be_null_under_a_budget(path: str, tmp_path: Path) -> None:
    async with FaultUpstream(ANSWER) as upstream, routing(settings(cloud(upstream), more=CAP), tmp_path) as router:
        reply = await router.post(NULLS[path], path)
        assert reply.status_code == 200, reply.text
        (sent,) = upstream.seen
        changed = {name for name, value in sent.json.items() if value != NULLS[path].get(name)}
        assert changed <= {"model", "max_tokens", "max_output_tokens"}


async def test_null_preferences_of_a_provider_are_none() -> None:
    nulls = dict.fromkeys(("order", "only", "ignore", "allow_fallbacks", "data_collection", "sort", "max_price"))
    async with FaultUpstream(ANSWER) as upstream, routing(settings(cloud(upstream))) as router:
        assert (await router.chat({"provider": nulls})).status_code == 200
        assert (await router.chat({"provider": {"max_price": {"prompt": None}}})).status_code == 200
