"""A stand-in for paid providers that bills what their documentation says, for whatever reaches it.

It knows nothing of Spillway's lists. Each rule names where it stands. Where a provider's documents leave a range (the
tokens of a document, how often a tool is used, how long an answer is), the stand-in draws from it, up to the most.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

NANO = 10**9
_CHAT = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class PaidModel:
    """A model as its provider sells it, in USD per million tokens. `obeys` are the fields that bound its output."""

    provider: str
    model: str
    input: str
    output: str
    context: int
    most_output: int
    obeys: tuple[str, ...] = _CHAT
    cached: str = ""
    write: str = ""
    write_long: str = ""
    request_fee: str = ""
    """What every request costs besides its tokens, in USD."""
    fee_stated: bool = False
    """Whether the configuration says so, as `price.per_request`."""


# docs.perplexity.ai/guides/pricing: 6 USD per 1,000 requests with the smallest search
_SONAR = PaidModel(
    "generic",
    "sonar-pro",
    input="3",
    output="15",
    context=200_000,
    most_output=8192,
    obeys=("max_tokens",),
    request_fee="0.006",
    fee_stated=True,
)
MODELS: Mapping[str, PaidModel] = {
    "gpt": PaidModel("openai", "gpt-4o", input="2.5", output="10", context=128_000, most_output=16_384, cached="1.25"),
    "search": PaidModel(
        "openai", "gpt-4o-search-preview", input="2.5", output="10", context=128_000, most_output=16_384
    ),
    "ant": PaidModel(
        "anthropic",
        "claude-opus-4-6",
        input="5",
        output="25",
        context=1_000_000,
        most_output=128_000,
        cached="0.5",
        write="6.25",
        write_long="10",
    ),
    "groq": PaidModel("groq", "openai/gpt-oss-20b", input="0.075", output="0.3", context=131_072, most_output=32_768),
    # docs.together.ai/reference/chat-completions-1 knows max_tokens only
    "tog": PaidModel(
        "together",
        "openai/gpt-oss-120b",
        input="0.15",
        output="0.6",
        context=131_072,
        most_output=65_536,
        obeys=("max_tokens",),
    ),
    "orr": PaidModel(
        "openrouter", "openai/gpt-oss-20b", input="0.05", output="0.2", context=131_072, most_output=32_768
    ),
    # docs.vllm.ai: the server obeys max_tokens; an older one knows nothing else
    "mine": PaidModel(
        "generic",
        "m",
        input="1",
        output="4",
        context=32_768,
        most_output=8192,
        obeys=("max_tokens", "max_output_tokens"),
    ),
    "pplx": _SONAR,
    "bare": replace(_SONAR, fee_stated=False),
}
"""By the name of the backend."""


@dataclass(slots=True)
class Bill:
    """What the provider bills for one call: tokens by kind, tool calls with their fees, and the sum."""

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0
    written_long: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    fees: Decimal = Decimal(0)
    factor: Decimal = Decimal(1)
    service: str = ""
    region: str = ""
    nano: int = 0


class RefusedError(Exception):
    """The provider refuses the call with a 400 and bills nothing."""


def bill_of(sold: PaidModel, path: str, body: Mapping[str, Any], rng: random.Random) -> Bill:
    """Return what the provider bills for this body. Raises RefusedError."""
    kinds = _kinds(_without_text_documents(dict(body)))
    bill = Bill(input=_input(sold, body, kinds, rng), fees=Decimal(sold.request_fee or 0))
    if path != "/embeddings":
        bill.output = _output(sold, body, rng)
    _think_twice(body, rng, bill)
    _use_tools(sold, path, body, rng, bill)
    _modes(sold, body, bill)
    _caches(sold, path, body, rng, bill)
    _add_up(sold, body, bill)
    return bill


def _input(sold: PaidModel, body: Mapping[str, Any], kinds: list[str], rng: random.Random) -> int:
    """Return the tokens of the prompt: those of text are at most its bytes, and nothing is longer than the context."""
    size = sum(len(json.dumps(body.get(name), ensure_ascii=False).encode()) for name in _PROMPT if body.get(name))
    tokens = rng.randrange(1, size + 1) + rng.randrange(64)
    if not _HIDING.isdisjoint(kinds):
        # platform.claude.com/docs/en/build-with-claude/pdf-support: 1,500 to 3,000 tokens a page and a picture of it
        tokens += rng.randrange(1500, 3000) * rng.randrange(1, 100)
    if any(body.get(name) for name in ("previous_response_id", "conversation")) or isinstance(body.get("prompt"), dict):
        # platform.openai.com/docs/guides/conversation-state: all previous input tokens are billed as input
        tokens += rng.randrange(100_000)
    # platform.openai.com/docs/guides/images-vision: 85 + 170 for each of up to eight tiles
    tokens += sum(rng.randrange(85, 1446) for kind in kinds if kind in ("image_url", "image", "input_image"))
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    if tools and sold.provider in ("anthropic", "openrouter"):
        # docs.anthropic.com/en/docs/tool-use-pricing-and-tokens
        tokens += rng.choice((159, 235, 264, 281, 313, 340, 346, 395, 530))
        tokens += sum(_OF_TOOL.get(str(tool.get("type")).rpartition("_")[0], 0) for tool in tools)
    elif tools:
        tokens += rng.randrange(200)
    return min(tokens, sold.context)


_PROMPT = ("messages", "input", "prompt", "system", "instructions", "tools", "functions", "response_format", "suffix")
_HIDING = frozenset({"document", "file", "input_file", "search_result", "video_url", "item_reference"})
_OF_TOOL = {"bash": 245, "text_editor": 700, "computer": 1234}
"""platform.claude.com/docs/en/about-claude/pricing: input tokens of Anthropic's own tool definitions."""


def _kinds(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["type"]] if isinstance(value.get("type"), str) else []
        return own + [kind for inner in value.values() for kind in _kinds(inner)]
    return [kind for inner in value for kind in _kinds(inner)] if isinstance(value, list) else []


def _without_text_documents(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_text_documents(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "document" and value["source"].get("type") in ("text", "content"):
        return {}
    return {name: _without_text_documents(inner) for name, inner in value.items()}


def _output(sold: PaidModel, body: Mapping[str, Any], rng: random.Random) -> int:
    limits = [body[name] for name in sold.obeys if type(body.get(name)) is int]
    most = min([sold.most_output, *limits])
    output = most if most < 2 or rng.random() < 0.5 else rng.randrange(1, most + 1)
    choices = max(body.get(name) or 1 for name in _CHOICES)
    prompts = body.get("prompt")
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        choices *= len(prompts)
    prediction = body.get("prediction") or body.get("speculation")
    # platform.openai.com/docs/guides/predicted-outputs: tokens of the prediction that are rejected are billed as output
    rejected = rng.randrange(len(json.dumps(prediction, ensure_ascii=False).encode()) + 1) if prediction else 0
    return (output + rejected) * choices


_CHOICES = ("n", "best_of", "candidate_count", "num_generations", "num_return_sequences")
"""The number of answers by the names of OpenAI, Google, Cohere and Hugging Face."""


def _think_twice(body: Mapping[str, Any], rng: random.Random, bill: Bill) -> None:
    """Multiply what a mode of several passes reads and writes.

    openrouter.ai/docs/cookbook/evaluate-and-optimize/model-migrations/gpt-5-6: `pro` reasons in several passes, at the
    same price per token, of which it uses more.
    """
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict) and reasoning.get("mode") == "pro":
        passes = rng.randrange(2, 9)
        bill.input *= passes
        bill.output *= passes


def _use_tools(sold: PaidModel, path: str, body: Mapping[str, Any], rng: random.Random, bill: Bill) -> None:
    uses: list[str] = []
    for tool in body.get("tools") or ():
        kind = str(tool.get("type", "function"))
        if sold.provider == "anthropic" and kind.startswith(_ANTHROPIC):
            # platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool: without max_uses there is no limit
            limit = tool.get("max_uses")
            uses += [kind.rpartition("_")[0]] * (limit if type(limit) is int else 12)
        elif path == "/responses" and kind in _HOSTED:
            uses += [kind] * rng.randrange(13)
        elif kind in ("browser_search", "openrouter:web_search", "mcp"):
            uses += [kind] * 8
    limit = body.get("max_tool_calls")
    if path == "/responses" and type(limit) is int:
        # platform.openai.com/docs/api-reference/responses/create: further attempts to call a tool are ignored
        rng.shuffle(uses)
        uses = uses[:limit]
    once = bill.input
    for kind in uses:
        # Each use is another turn of the model, which reads everything again, with the results so far.
        once = min(sold.context, once + rng.randrange(30_000))
        bill.input += once
        bill.calls[kind] = bill.calls.get(kind, 0) + 1
    bill.fees += sum((_FEES.get(kind, Decimal(0)) * _billed(kind, n) for kind, n in bill.calls.items()), Decimal(0))
    if body.get("web_search_options") is not None or "search-preview" in sold.model:
        # community.openai.com/t/help-me-understand-the-web-tool-cost/1369991: 58 calls were billed as 119 searches
        bill.fees += Decimal("0.025") * rng.randrange(1, 4)
    if any("googleSearch" in tool for tool in body.get("tools") or ()):
        # docs.apiyi.com/en/api-capabilities/gemini/web-search: 14 USD per 1,000 searches, 1 to 7 for an answer
        bill.fees += Decimal("0.014") * rng.randrange(1, 8)
    if any(body.get(name) for name in _SEARCHES):
        # docs.x.ai/docs/guides/live-search: 25 USD per 1,000 sources; the others cost 3 to 10 USD per 1,000 searches
        bill.fees += Decimal("0.025") * rng.randrange(1, 21)
    if body.get("plugins"):
        bill.fees += Decimal("0.2")  # openrouter.ai/docs/guides/features/plugins/web-search: 4 USD per 1,000 results
    if body.get("modalities") == ["text", "audio"]:
        bill.fees += Decimal("0.08")  # openai.com/api/pricing: 80 USD per million tokens of speech
    if body.get("mcp_servers"):
        bill.input += sold.context


_SEARCHES = ("search_parameters", "enable_search", "web_search", "connectors", "venice_parameters")
"""Fields that start searches: xAI; Alibaba Cloud; Baidu and z.ai; Cohere; Venice."""
_ANTHROPIC = ("web_search", "web_fetch", "code_execution")
_HOSTED = frozenset({"web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation", "mcp"})
_FEES = {
    "web_search": Decimal("0.01"),
    "web_search_preview": Decimal("0.025"),
    "file_search": Decimal("0.0025"),
    "code_interpreter": Decimal("0.03"),
    "image_generation": Decimal("0.17"),
    "browser_search": Decimal("0.005"),
}
"""USD per call: openai.com/api/pricing, platform.claude.com/docs/en/about-claude/pricing, groq.com/pricing."""


def _billed(kind: str, uses: int) -> int:
    """Return how often the fee is billed: all calls of a response share one container."""
    return 1 if kind == "code_interpreter" else uses


def _modes(sold: PaidModel, body: Mapping[str, Any], bill: Bill) -> None:
    tier = body.get("service_tier")
    if sold.provider == "openai" and (tier == "priority" or tier == "flex"):
        bill.service = str(tier)
        bill.factor = Decimal("1.7") if tier == "priority" else Decimal("0.5")  # openai.com/api/pricing, for gpt-4o
    if sold.provider == "anthropic" and body.get("speed") == "fast":
        bill.factor *= 6  # platform.claude.com/docs/en/build-with-claude/fast-mode
    if sold.provider == "anthropic" and body.get("inference_geo") == "us":
        bill.region = "us"
        bill.factor *= Decimal("1.1")  # platform.claude.com/docs/en/about-claude/pricing (data residency)


def _caches(sold: PaidModel, path: str, body: Mapping[str, Any], rng: random.Random, bill: Bill) -> None:
    text = json.dumps(body) if sold.write and path == "/messages" else ""
    if "cache_control" in text:
        if '"1h"' in text:
            bill.written_long = rng.randrange(bill.input + 1)
        else:
            bill.written = rng.randrange(bill.input + 1)
    elif sold.cached and rng.random() < 0.3:
        bill.cached = rng.randrange(bill.input + 1)


def _add_up(sold: PaidModel, body: Mapping[str, Any], bill: Bill) -> None:
    price_in, price_out = _routed(sold, body)
    fresh = bill.input - bill.cached - bill.written - bill.written_long
    tokens = (
        fresh * price_in
        + bill.cached * Decimal(sold.cached or price_in)
        + bill.written * Decimal(sold.write or price_in)
        + bill.written_long * Decimal(sold.write_long or price_in)
        + bill.output * price_out
    ) / 10**6
    bill.nano = int(((tokens * bill.factor + bill.fees) * NANO).quantize(Decimal(1), ROUND_HALF_UP))


def _routed(sold: PaidModel, body: Mapping[str, Any]) -> tuple[Decimal, Decimal]:
    """Return the prices of input and output. Raises RefusedError.

    openrouter.ai/docs/guides/routing/provider-selection: a provider in `provider.order` may be dearer, but none above
    `provider.max_price` is asked; model-fallbacks: any error may be answered by another model of `models`.
    """
    usual = Decimal(sold.input), Decimal(sold.output)
    if sold.provider != "openrouter":
        return usual
    provider = body["provider"] if isinstance(body.get("provider"), dict) else {}
    price = (usual[0] * 4, usual[1] * 4) if provider.get("order") else (usual[0] / 2, usual[1] / 2)
    price = (Decimal(150), Decimal(600)) if body.get("models") else price
    limit = provider.get("max_price")
    if limit is None:
        return price
    most = Decimal(str(limit["prompt"])), Decimal(str(limit["completion"]))
    for offered in (price, usual, (usual[0] / 2, usual[1] / 2)):
        if offered[0] <= most[0] and offered[1] <= most[1]:
            return offered
    raise RefusedError("no provider is within max_price")


def answer_of(sold: PaidModel, path: str, bill: Bill) -> dict[str, Any]:
    """Return the provider's answer with its usage, in the shape of the endpoint."""
    if path == "/messages":
        return _message(bill)
    if path == "/responses":
        return _response(bill)
    usage: dict[str, Any] = {
        "prompt_tokens": bill.input,
        "completion_tokens": bill.output,
        "total_tokens": bill.input + bill.output,
        "prompt_tokens_details": {"cached_tokens": bill.cached},
    }
    if sold.provider == "openrouter":
        usage["cost"] = bill.nano / NANO
    if path == "/embeddings":
        return {"object": "list", "data": [{"index": 0, "embedding": [0.1]}], "usage": usage}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if path == "/completions":
        choice["text"] = "So."
    else:
        choice["message"] = {"role": "assistant", "content": "So."}
    service = {"service_tier": bill.service} if bill.service else {}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage, **service}


def _message(bill: Bill) -> dict[str, Any]:
    written = bill.written + bill.written_long
    usage: dict[str, Any] = {
        "input_tokens": bill.input - bill.cached - written,
        "output_tokens": bill.output,
        "cache_read_input_tokens": bill.cached,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": bill.written, "ephemeral_1h_input_tokens": bill.written_long},
    }
    if bill.calls:
        usage["server_tool_use"] = {f"{kind}_requests": uses for kind, uses in bill.calls.items()}
    if bill.region:
        usage["inference_geo"] = bill.region  # platform.claude.com/docs/en/build-with-claude/data-residency
    text = {"type": "text", "text": "So."}
    return {"type": "message", "role": "assistant", "content": [text], "stop_reason": "end_turn", "usage": usage}


def _response(bill: Bill) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    for kind, uses in bill.calls.items():
        name = "web_search" if kind.startswith("web_search") else kind
        for number in range(uses):
            item: dict[str, Any] = {"type": f"{name}_call", "id": f"{kind}_{number}", "status": "completed"}
            if name == "web_search":
                item["action"] = {"type": "search", "query": "q"}
            if name == "code_interpreter":
                item["container_id"] = "cntr_1"
            output.append(item)
    output.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]})
    usage = {
        "input_tokens": bill.input,
        "output_tokens": bill.output,
        "input_tokens_details": {"cached_tokens": bill.cached},
    }
    return {"object": "response", "id": "resp_made", "status": "completed", "output": output, "usage": usage}
