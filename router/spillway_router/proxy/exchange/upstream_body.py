"""The body that goes to a backend: the client's bytes, with only those fields changed that a rule must change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.bounds import NO_RULES, ItemRule, rule_of, shared_limit
from spillway_router.core.money.tariff import STANDARD
from spillway_router.core.routing.filters import output_bound
from spillway_router.core.routing.model import Backend, Outcome, RequestFacts
from spillway_router.http_client.types import Pieces
from spillway_router.providers.streams import exact, json_bytes
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.memory.refused_additions import NOTHING, Addition
from spillway_router.proxy.request import body as wire
from spillway_router.proxy.request.items import limit_of, tool_item
from spillway_router.proxy.request.large_body import LargeBody, spans_of


@fast_frozen(frozen=True, slots=True)
class UpstreamBody:
    """The bytes for a backend, and which parts of the answer the client did not ask for and must not see."""

    body: bytes | Pieces
    usage_added: bool
    usage_asked: bool
    logprobs_added: bool
    options_sent: bool = False
    """Whether the client sent `stream_options` of its own."""
    bounds_added: tuple[tuple[str, Addition], ...] = ()
    """The fields that only bound the cost and that the client did not send, by the name under which an error shows
    them."""

    def refused_addition(self, outcome: Outcome) -> Addition | None:
        """Return what the backend refused if it names something that only the router added; None otherwise."""
        if outcome.kind not in ("rejected", "unserved"):
            return None
        text = outcome.said
        if outcome.error is not None:
            text = f"{text} {outcome.error.get('param')}"
        if self.logprobs_added and "logprobs" in text:
            return "logprobs"
        if self.usage_added and ("include_usage" in text or ("stream_options" in text and not self.options_sent)):
            return "usage"
        for name, addition in self.bounds_added:
            # Where the prompt and the bound together exceed the context, the bound may be all that is too long.
            if name in text or (outcome.fault == "context" and addition in _OUTPUT_ADDITIONS):
                return "bound" if outcome.fault == "context" else addition
        return None


def prepare(
    facts: RequestFacts,
    raw: bytes,
    body: dict[str, object],
    route: BackendRoute,
    top_logprobs: int = 0,
    left_out: AbstractSet[Addition] = NOTHING,
) -> UpstreamBody:
    """Change the model, ask for usage and, for an answer that is to be scored, for logprobs.

    `raw` and `body` are the client's bytes and their JSON; a LargeBody must be the one that was read from `raw`.
    `top_logprobs` is the number of alternatives per token (0: the answer is not scored). `left_out` names what the
    backend refuses.
    """
    changes: dict[str, object] = {}
    backend = route.backend
    if body.get("model") != backend.model:
        changes["model"] = backend.model
    entry = route.provider.entry
    options = body.get("stream_options")
    usage_asked = isinstance(options, dict) and options.get("include_usage") is True
    usage_added = (
        facts.stream
        and facts.endpoint in ("chat", "completions")
        and not (usage_asked or entry.usage_unasked or "usage" in left_out)
    )
    if usage_added:
        changes["stream_options"] = _with_usage(options)
    logprobs = body.get("logprobs")
    # A client's 0 asks for the logprobs of the chosen tokens. The alternatives show how close a choice was, and which
    # tokens a grammar forced.
    logprobs_added = bool(top_logprobs) and (logprobs is None or logprobs is False)
    if logprobs_added:
        if facts.endpoint == "chat":
            changes |= {"logprobs": True, "top_logprobs": top_logprobs}
        else:
            changes["logprobs"] = top_logprobs
    drop = NO_FIELDS if entry.drops_fields.isdisjoint(body) else entry.drops_fields.intersection(body)
    if entry.withheld_fields:
        drop |= entry.withheld_fields.intersection(body)
    if backend.knows_preferences:
        provider = _to_its_providers(body.get("provider"), facts, backend)
        if provider != body.get("provider"):
            changes["provider"] = provider
    bounds_added: tuple[tuple[str, Addition], ...] = ()
    if backend.tariff is not None and not backend.tariff.free:
        bounds = bound_fields(facts, body, backend, left_out)
        changes |= bounds
        unsure = backend.output_field_unsure and "spelling" not in left_out
        drop |= NO_FIELDS if unsure else _unheeded_bounds(changes, body)
        bounds_added = tuple([_named_in_errors(name, facts, left_out) for name in bounds])
    known_spans = None if type(body) is dict else spans_of(body)
    edited: bytes | Pieces
    if known_spans is None:
        edited = wire.edit(raw, body.keys(), changes, drop)
    else:
        edited = wire.edited_pieces(raw, body.keys(), changes, drop, known_spans)
    return UpstreamBody(
        body=edited,
        usage_added=usage_added,
        usage_asked=usage_asked,
        logprobs_added=logprobs_added,
        options_sent=options is not None,
        bounds_added=bounds_added,
    )


def _with_usage(options: object) -> dict[str, object]:
    """Return the client's stream options, with the usage asked for."""
    kept = dict(options) if isinstance(options, dict) else {}
    kept.pop("continuous_usage_stats", None)  # it has no effect without include_usage
    return {**kept, "include_usage": True}


def bound_fields(
    facts: RequestFacts, body: Mapping[str, object], backend: Backend, left_out: AbstractSet[Addition] = NOTHING
) -> dict[str, object]:
    """Return the fields that make a paid provider keep to what was held: where the client set no limit, or in a
    spelling that the provider doesn't know, its own is sent. `left_out` names what the backend refuses."""
    fields: dict[str, object] = {}
    if "bound" not in left_out:
        fields = _output_field(facts, body, backend, other_spelling="spelling" in left_out)
    usual = "" if "service" in left_out else backend.usual_service
    if usual and facts.service == STANDARD and body.get("service_tier") in _ACCOUNTS_CHOICE:
        fields["service_tier"] = usual
    if backend.sends_max_price and "prices" not in left_out:
        provider = _to_its_providers(body.get("provider"), facts, backend)
        fields["provider"] = _with_max_price(provider, facts, backend)
    if facts.items and "tool_limits" not in left_out:
        fields |= tool_limits(facts, body, backend)
    return fields


def _output_field(
    facts: RequestFacts, body: Mapping[str, object], backend: Backend, *, other_spelling: bool
) -> dict[str, object]:
    """Return the field that bounds the output, in the spelling that the backend obeys; nothing if it is there."""
    obeyed = backend.output_fields.get(facts.endpoint, ())
    if other_spelling and obeyed:
        obeyed = tuple([name for name in CHAT_SPELLINGS if name != obeyed[0]])
    sent = any(body.get(name) is not None for name in obeyed)
    if not obeyed or sent or (facts.max_tokens is None and backend.output_is_bounded):
        return {}
    return {obeyed[0]: output_bound(facts, backend)}


def _named_in_errors(name: str, facts: RequestFacts, left_out: AbstractSet[Addition]) -> tuple[str, Addition]:
    """Return how an error names a field that was added, and what is taken back then."""
    if name in _OUTPUT_FIELDS:
        respelled = facts.endpoint == "chat" and "spelling" not in left_out
        return name, "spelling" if respelled else "bound"
    if name == "service_tier":
        return name, "service"
    if name == "provider":
        return "max_price", "prices"
    return "max_uses" if name == "tools" else name, "tool_limits"


_ACCOUNTS_CHOICE = (None, "auto")
NO_FIELDS: frozenset[str] = frozenset()
_OUTPUT_ADDITIONS: tuple[Addition, ...] = ("spelling", "bound")
CHAT_SPELLINGS = ("max_tokens", "max_completion_tokens")
"""The names under which servers of chats know the bound of the output."""
_OUTPUT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _unheeded_bounds(changes: Mapping[str, object], body: Mapping[str, object]) -> frozenset[str]:
    """Return the client's bounds in a spelling that the provider doesn't know, if its own takes their place.

    A server of which nobody knows which one it obeys gets both, until it has refused one.
    """
    if not any(name in changes for name in _OUTPUT_FIELDS):
        return frozenset()
    return frozenset(name for name in _OUTPUT_FIELDS if name in body and name not in changes)


def tool_limits(facts: RequestFacts, body: Mapping[str, object], backend: Backend) -> dict[str, object]:
    """Return `tools` and `max_tool_calls` with the limits that were held for the provider's tools, where the client set
    none."""
    rules = backend.item_rules.get(facts.endpoint, NO_RULES)
    limited = {item.name: rule for item in facts.items if (rule := rule_of(item, rules)) is not None and rule.limit}
    fields: dict[str, object] = {}
    if not limited:
        return fields
    shared = [rule.most_uses for rule in limited.values() if rule.limit == "max_tool_calls"]
    if shared and shared_limit(facts.items) is None:
        fields["max_tool_calls"] = max(shared)
    tools = body.get("tools")
    if isinstance(tools, list) and any(rule.limit == "max_uses" for rule in limited.values()):
        sent = [_limited_tool(tool, limited) for tool in tools]
        if sent != tools:
            fields["tools"] = sent
    return fields


def _limited_tool(tool: object, limited: Mapping[str, ItemRule]) -> object:
    if not isinstance(tool, dict):
        return tool
    rule = limited.get(tool_item(tool))
    if rule is None or rule.limit != "max_uses" or limit_of(tool) is not None:
        return tool
    return {**tool, "max_uses": rule.most_uses}


def _to_its_providers(provider: object, facts: RequestFacts, backend: Backend) -> object:
    """Return OpenRouter's `provider` as it is meant there: without the names of the backend itself, which are none of
    its providers, and with the order that the suffix of the model's name asks for."""
    suffix = facts.model.rpartition(":")[2]
    sort = None if backend.model.endswith(f":{suffix}") else _SORTS.get(suffix)
    if not isinstance(provider, dict):
        return provider if sort is None else {"sort": sort}
    own = {backend.name.lower(), backend.provider}
    sent = dict(provider)
    for name in ("order", "only"):
        names = sent.get(name)
        if isinstance(names, list) and any(isinstance(one, str) and one.lower() in own for one in names):
            others = [one for one in names if not (isinstance(one, str) and one.lower() in own)]
            sent.pop(name) if name == "only" or not others else sent.update({name: others})
    if sort is not None and sent.get("sort") is None:
        sent["sort"] = sort
    return sent


_SORTS = {"fastest": "latency", "nitro": "throughput", "cheapest": "price", "floor": "price"}
"""What suffixes of a model's name ask for, in the words of OpenRouter's `provider.sort`."""


def _with_max_price(provider: object, facts: RequestFacts, backend: Backend) -> dict[str, object]:
    """Return OpenRouter's `provider` with the prices of the backend as the highest ones, unless the client's are
    lower."""
    tariff, wanted = backend.tariff, facts.preferences
    assert tariff is not None
    highest: dict[str, object] = {"request": float(tariff.per_request)}
    for name, price, limit in (
        ("prompt", tariff.input_per_million, wanted.max_input_per_million),
        ("completion", tariff.output_per_million, wanted.max_output_per_million),
    ):
        highest[name] = float(price) if limit is None else min(float(price), limit)
    return {**(provider if isinstance(provider, dict) else {}), "max_price": highest}


def with_cost(data: bytes, answer: dict[str, object], cost_usd: float) -> bytes:
    """Return the JSON of an answer or event with `usage.cost`; every other byte stays.

    `answer` is what `data` holds, and its usage is an object.
    """
    usage = answer["usage"]
    assert isinstance(usage, dict)
    if data.endswith(b"}}") and usage and "cost" not in usage and next(reversed(answer)) == "usage":
        # The last two braces end the usage and the answer, so nothing has to be walked to find them.
        return b'%b,"cost":%b}}' % (data[:-2], json_bytes(cost_usd))
    _, start, end = (spans_of(answer) or wire.spans(data))["usage"]
    inner = data[start:end]
    return data[:start] + wire.edit(inner, usage.keys(), {"cost": cost_usd}, known_spans=wire.spans(inner)) + data[end:]


def without_logprobs(answer: dict[str, object], raw: bytes) -> bytes:
    """Serialise a whole answer without the logprobs that only the router asked for. Changes `answer`, which was parsed
    from `raw`."""
    answer = json.loads(raw) if isinstance(answer, LargeBody) else exact(raw, answer)
    choices = answer.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
    return json_bytes(answer)
