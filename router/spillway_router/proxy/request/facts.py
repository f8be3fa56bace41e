"""Read RequestFacts from headers and a parsed body: check every hint once, and name the fix of every mistake."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import TariffError, nano_from_usd
from spillway_router.core.money.users import user_id
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Caller,
    Capability,
    Endpoint,
    Hints,
    Preferences,
    PrivacyVerdict,
    RequestFacts,
    Sort,
)
from spillway_router.privacy.detectors import Detectors
from spillway_router.privacy.recognizer import Recognizer
from spillway_router.privacy.unreadable import holds_unreadable
from spillway_router.proxy.request.attachments import PICTURE_KINDS, attachments
from spillway_router.proxy.request.errors import bad_request
from spillway_router.proxy.request.hint_names import check_hint_names
from spillway_router.proxy.request.items import PLAIN_MESSAGE, hides_input, request_items, requested_mode
from spillway_router.proxy.request.large_body import ExaminedBody, cut_strings
from spillway_router.proxy.request.media_urls import addresses_in, refuse_media
from spillway_router.proxy.request.passed_names import PASSED_TEXT
from spillway_router.proxy.request.privacy_marks import OPEN_MARKS, privacy_mark

MAX_OUTPUT_TOKENS = 1_000_000
MAX_CHOICES = 128
STORED_INPUT_TOKENS = 1_000_000
"""Most input tokens that the bytes don't show: earlier turns that the provider stored, documents, files."""
_PLAIN = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "stop", "seed", "user", "metadata"}
    | {"max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty"}
)
"""Fields that need no optional capability of a backend. With only these, a request asks for one choice of the standard
service."""
_OPTIONAL_OBJECT = (dict, type(None))  # a union would be built anew for each request
_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_BOUND_FIELDS: Mapping[Endpoint, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "embeddings": (),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
"""The fields that bound an answer, by endpoint. Others are passed on, but no provider obeys them there."""
_MOST_DIGITS = 12
_STORED_INPUT_FIELDS = ("previous_response_id", "conversation", "prompt")
"""Fields of /v1/responses that name input which the provider has stored."""
_REQUIRED: Mapping[Endpoint, str] = {
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "responses": "input",
    "messages": "messages",
}
_INSTEAD: Mapping[Endpoint, tuple[str, ...]] = {
    "responses": _STORED_INPUT_FIELDS,
}
"""Fields that make the required one unnecessary."""
_NO_BACKGROUND = (
    "'background' is not supported: what such an answer costs is known only after the request has ended, so that no "
    "budget could cover it. Omit it, and set 'stream': true for answers that take long."
)
_SHOWN = ("messages", "input", "prompt", "system")
"""Fields in which an engine may look for media, whichever of them the endpoint requires: vLLM takes `messages` for
embeddings, too."""
_NUMERIC_BOOLS = (0, 1)
"""Numbers that engines accept for false and true."""


@fast_frozen(frozen=True, slots=True)
class PrivacyRule:
    """What makes a request private, besides marks (no detectors: nothing is searched for)."""

    local_only: bool = False
    detectors: Detectors | None = None
    unreadable: bool = False
    """Whether content that no detector can read makes a request private."""
    recognizer: Recognizer | None = None
    """Reads the text after the detectors, in a thread."""
    media_hosts: frozenset[str] = frozenset()
    """Hosts of the own network from which media may be fetched."""
    media_domains: frozenset[str] = frozenset()
    """The hosts from which alone media may be fetched; empty: all public ones and `media_hosts`."""


def read_facts(
    request_id: str,
    endpoint: Endpoint,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    caller: Caller,
    rule: PrivacyRule,
) -> RequestFacts:
    """Return the facts of one request. Raise RefusedError for anything that is malformed."""
    model = _model(body)
    content, has_parts = _content(endpoint, body)
    # No API streams embeddings: backends ignore the field, and a whole answer would look like a broken stream.
    stream = _stream(body) and endpoint != "embeddings"
    if endpoint == "responses" and body.get("background"):
        raise bad_request(_NO_BACKGROUND, "background")
    prompt_bytes, kinds = _text(body, rule)
    max_tokens, hints = _max_tokens(endpoint, body), _hints(headers, caller)
    privacy = _privacy(headers, body, caller, rule, kinds)
    user = _user_id(endpoint, body, caller)
    if body.keys() <= _PLAIN and not has_parts:
        return RequestFacts(
            request_id=request_id,
            endpoint=endpoint,
            model=model,
            stream=stream,
            prompt_bytes=prompt_bytes,
            max_tokens=max_tokens,
            choices=1,
            needs=_NO_NEEDS,
            privacy=privacy,
            caller=caller,
            hints=hints,
            billed_choices=1,
            user_id=user,
        )
    for name in _REFUSED_FIELDS.keys() & body.keys():
        if body[name] is not None:
            raise bad_request(f"'{name}' is not taken: {_REFUSED_FIELDS[name]}.", name)
    if has_parts:
        shown = [body[name] for name in _SHOWN if name in body]
        refuse_media(addresses_in(shown), rule.media_hosts, rule.media_domains)
    choices, needs = _choices(endpoint, body), _needs(body, content)
    items = request_items(endpoint, body)
    attached = attachments(content, cut_strings(body))
    return RequestFacts(
        request_id=request_id,
        endpoint=endpoint,
        model=model,
        stream=stream,
        prompt_bytes=prompt_bytes - attached.data_bytes,
        max_tokens=max_tokens,
        choices=choices,
        needs=needs,
        privacy=privacy,
        caller=caller,
        hints=hints,
        preferences=_preferences(body),
        service=requested_mode(body),
        unseen_tokens=STORED_INPUT_TOKENS if hides_input(items) else 0,
        pictures=attached.pictures,
        media_tokens=attached.media_tokens,
        billed_choices=_best_of(endpoint, body, choices),
        items=items,
        user_id=user,
        inputs=_inputs(content) if endpoint == "embeddings" else 1,
    )


def _inputs(content: object) -> int:
    """Return of how many inputs a request wants a vector. A list of numbers is one input, by its tokens."""
    if not isinstance(content, list) or not content or isinstance(content[0], int):
        return 1
    return len(content)


_REFUSED_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "prompt_embeds": "what it says can't be judged; send text",
        "chat_template": "it runs in the engine; the operator sets it with server.vllm_args",
        "allowed_local_media_path": "the operator sets it with server.vllm_args",
        "allowed_media_domains": "the operator sets it with server.vllm_args",
    }
)
"""Fields that would take an engine out of the operator's hands, each with the reason."""


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if model is None:
        models = body.get("models")
        model = models[0] if isinstance(models, list) and models else "auto"
    if not isinstance(model, str) or not model or len(model) > 256:
        raise bad_request("'model' must be a non-empty string of at most 256 characters.", "model")
    return model


def _content(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[object, bool]:
    """Return the endpoint's required field ("" if another field replaces it), and whether it may have parts."""
    required = _REQUIRED[endpoint]
    content = body.get(required)
    if content is None:
        if not any(body.get(name) for name in _INSTEAD.get(endpoint, ())):
            raise bad_request(f"'{required}' is required.", required)
        content = ""
    if required == "messages":
        return content, _check_messages(content)
    if not isinstance(content, str | list):
        raise bad_request(f"'{required}' must be a string or an array.", required)
    return content, True


def _stream(body: Mapping[str, Any]) -> bool:
    stream = body.get("stream")
    if stream is None:
        stream = False
    if not isinstance(stream, bool):
        if stream not in _NUMERIC_BOOLS:
            raise bad_request("'stream' must be true or false.", "stream")
        stream = bool(stream)
    if not isinstance(body.get("stream_options"), _OPTIONAL_OBJECT):
        raise bad_request("'stream_options' must be an object such as {\"include_usage\": true}.", "stream_options")
    return stream


def _text(body: Mapping[str, Any], rule: PrivacyRule) -> tuple[int, frozenset[str]]:
    """Return the UTF-8 bytes of the body, and the kinds of private content in it."""
    if isinstance(body, ExaminedBody):
        return body.text_bytes, body.kinds
    text = orjson.dumps(body)
    return len(text), _NO_KINDS if rule.detectors is None else rule.detectors.kinds_in_body(body, text)


_NO_KINDS: frozenset[str] = frozenset()


def _check_messages(content: object) -> bool:
    """Check the messages' shape. Return True if a message has parts, which may be images."""
    if not isinstance(content, list) or not content:
        raise bad_request("'messages' must be a non-empty array of {role, content} objects.", "messages")
    parts = False
    for i, message in enumerate(content):
        if type(message) is not dict:
            raise bad_request(f"'messages[{i}]' must be an object with role and content.", f"messages[{i}]")
        if type(message.get("role")) is not str:
            raise bad_request(f"'messages[{i}].role' must be a string.", f"messages[{i}].role")
        inner = message.get("content")
        if type(inner) is list or ((len(message) > 2 or inner is None) and not message.keys() <= PLAIN_MESSAGE):
            parts = True
        elif inner is not None and type(inner) is not str:
            raise bad_request(f"'messages[{i}].content' must be a string or an array.", f"messages[{i}].content")
    return parts


def _max_tokens(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    """Return the largest bound of the body's output fields, as providers differ in which of two they obey."""
    largest: int | None = None
    for name in _OUTPUT_FIELDS:
        value = body.get(name)
        if value is None:
            continue
        number = value if type(value) is int else _whole_number(value)
        if number == 0 and endpoint == "completions" and body.get("echo") is True:
            continue  # it scores the prompt; the hold stays as without a bound, as some provider may ignore the 0
        if number is None or not 1 <= number <= MAX_OUTPUT_TOKENS:
            raise bad_request(f"'{name}' must be a whole number from 1 to {MAX_OUTPUT_TOKENS}.", name)
        if name in _BOUND_FIELDS[endpoint]:
            largest = number if largest is None else max(largest, number)
    return largest


def _whole_number(value: object) -> int | None:
    """Return the number for the forms that engines accept for it: 5, 5.0 and "5"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS:
        return int(value)
    return None


def _choices(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    """Return `n` times the number of prompts."""
    return _count(body, "n") * (_prompts(body) if endpoint == "completions" else 1)


def _best_of(endpoint: Endpoint, body: Mapping[str, Any], choices: int) -> int:
    """Return how many choices may be billed: servers that know `best_of` know it in chats, too."""
    if type(body.get("best_of")) is int and body["best_of"] == 0:
        return choices  # OpenAI's specification allows it
    return max(choices, _count(body, "best_of") * (_prompts(body) if endpoint == "completions" else 1))


def _count(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 1
    number = _whole_number(value)
    if number is None or not 1 <= number <= MAX_CHOICES:
        raise bad_request(f"'{name}' must be a whole number from 1 to {MAX_CHOICES}.", name)
    return number


def _prompts(body: Mapping[str, Any]) -> int:
    """Count the prompts: `prompt` may be a text, its tokens, or a list of either."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _needs(body: Mapping[str, Any], content: object) -> frozenset[Capability]:
    needs: list[Capability] = []
    if (body.get("tools") or body.get("functions")) and body.get("tool_choice") != "none":
        needs.append("tools")
    logprobs = body.get("logprobs")
    if logprobs is not None and logprobs is not False:
        needs.append("logprobs")
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        needs.append("json_schema")
    if _shows_images(content):
        needs.append("vision")
    return frozenset(needs) if needs else _NO_NEEDS


_NO_NEEDS: frozenset[Capability] = frozenset()


def _shows_images(content: object) -> bool:
    if isinstance(content, list):
        for message in content:
            parts = message.get("content") if isinstance(message, dict) else None
            if isinstance(parts, list) and any(isinstance(p, dict) and p.get("type") in PICTURE_KINDS for p in parts):
                return True
    return False


def _privacy(
    headers: Mapping[str, str], body: Mapping[str, Any], caller: Caller, rule: PrivacyRule, kinds: frozenset[str]
) -> PrivacyVerdict:
    """Judge privacy. Marks and detectors can only add restriction; a malformed mark means private."""
    reasons: list[str] = []
    header = headers.get("x-spillway-privacy")
    if header is not None and header.strip().lower() not in OPEN_MARKS:
        reasons.append("header")
    if privacy_mark(body):
        reasons.append("metadata")
    if caller.local_only:
        reasons.append("key")
    if rule.local_only:
        reasons.append("default")
    if rule.detectors is not None and not PASSED_TEXT.isdisjoint(headers):
        kinds |= rule.detectors.kinds_in_text("\n".join([headers.get(name, "") for name in sorted(PASSED_TEXT)]))
    if kinds:
        reasons += sorted(kinds)
    if rule.unreadable and holds_unreadable(body):
        reasons.append("unreadable")
    return PrivacyVerdict(False, tuple(reasons)) if reasons else _MAY_LEAVE


def content_verdict(body: Mapping[str, Any], rule: PrivacyRule) -> PrivacyVerdict:
    """Judge the privacy of a body by the rule and its own marks, without those of its headers, its key and its session.

    An ExaminedBody must have been searched by this rule.
    """
    return _privacy({}, body, _ANYBODY, rule, _text(body, rule)[1])


_ANYBODY = Caller()


def _user_id(endpoint: Endpoint, body: Mapping[str, Any], caller: Caller) -> str:
    """Return the pseudonym of the user whom a body names, empty if it names none: `safety_identifier` or `user` in
    OpenAI's requests, `metadata.user_id` in Anthropic's."""
    if endpoint == "messages":
        metadata = body.get("metadata")
        name = metadata.get("user_id") if type(metadata) is dict else None
    else:
        name = body.get("safety_identifier") or body.get("user")
    return user_id(caller.key_id, name) if name and isinstance(name, str) else ""


_MAY_LEAVE = PrivacyVerdict(True)
_NO_HINTS = Hints()


def _hints(headers: Mapping[str, str], caller: Caller) -> Hints:
    # One search in the joined names is faster than one in each name. A misspelt prefix is looked for as well.
    names = "\n".join(headers)
    if "spil" in names or "priva" in names or "tag" in names or "label" in names or "metadata" in names:
        check_hint_names(headers)
    elif "x-session-id" not in headers:
        return _NO_HINTS
    session = headers.get("x-session-id", "").strip(" \t")
    if "x-spillway-provider-key" in headers and "x-spillway-provider" not in headers:
        # Ignoring it would answer on our account.
        raise bad_request("Send x-spillway-provider with x-spillway-provider-key.", "x-spillway-provider")
    if len(session) > 256:
        raise bad_request("x-session-id must be at most 256 characters.", "x-session-id")
    route = headers.get("x-spillway-route", "auto").strip().lower()
    if route not in ("auto", "local", "cloud"):
        raise bad_request("x-spillway-route must be local, cloud or auto.", "x-spillway-route")
    if route != "auto" and not caller.may_route:
        raise bad_request("This key may not use x-spillway-route. Omit the header.", "x-spillway-route")
    cache = headers.get("x-spillway-cache", "").strip().lower()
    if cache not in ("", "use", "sampled", "refresh", "off"):
        raise bad_request("x-spillway-cache must be use, sampled, refresh or off.", "x-spillway-cache")
    if headers.get("x-spillway-usage-cost", "true").strip().lower() not in ("true", "false"):
        raise bad_request("x-spillway-usage-cost must be true or false.", "x-spillway-usage-cost")
    slo_ms = _number(headers, "x-spillway-slo-ttft-ms", 1.0, 3_600_000.0)
    cost = headers.get("x-spillway-max-cost-usd")
    try:
        cost_nano = None if cost is None else nano_from_usd(cost.strip())
    except TariffError as error:
        raise bad_request(f"x-spillway-max-cost-usd: {error}.", "x-spillway-max-cost-usd") from None
    if cost_nano is not None and cost_nano < 0:
        raise bad_request("x-spillway-max-cost-usd must be 0 or more.", "x-spillway-max-cost-usd")
    return Hints(
        route=route,  # type: ignore[arg-type]  # checked above
        min_confidence=_number(headers, "x-spillway-min-confidence", 0.0, 1.0),
        slo_ttft_s=None if slo_ms is None else slo_ms / 1000,
        max_cost_nano=cost_nano,
        session_id=session,
        cache=cache,  # type: ignore[arg-type]  # checked above
    )


def _number(headers: Mapping[str, str], name: str, low: float, high: float) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = float("nan") if "_" in text else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise bad_request(f"{name} must be a number from {low:g} to {high:g}.", name)
    return value


def _preferences(body: Mapping[str, Any]) -> Preferences:
    models, provider = body.get("models"), body.get("provider")
    if models is None and provider is None:
        return NO_PREFERENCES
    if models is not None and (not isinstance(models, list) or not all(isinstance(m, str) and m for m in models)):
        raise bad_request("'models' must be an array of model names.", "models")
    if provider is None:
        return Preferences(tuple(models or ()))
    if not isinstance(provider, dict):
        raise bad_request("'provider' must be an object (order, only, ignore, allow_fallbacks, max_price).", "provider")
    for name in provider:
        if name not in _PROVIDER_FIELDS:
            message = f"'provider.{name[:80]}' is not known. Use {', '.join(_PROVIDER_FIELDS)}."
            raise bad_request(message, "provider")
    price = provider.get("max_price") or {}
    if not isinstance(price, dict):
        raise bad_request("'provider.max_price' must be an object {prompt, completion} in USD per million.", "provider")
    fallbacks = _flag(provider, "allow_fallbacks")
    collection = "allow" if provider.get("data_collection") is None else provider["data_collection"]
    if collection not in ("allow", "deny"):
        raise bad_request("'provider.data_collection' must be allow or deny.", "provider.data_collection")
    sort, across_models = _sort(provider.get("sort"))
    return Preferences(
        models=tuple(models or ()),
        sort=sort,
        order=_strings(provider, "order"),
        only=frozenset(_strings(provider, "only")),
        ignore=frozenset(_strings(provider, "ignore")),
        allow_fallbacks=fallbacks is not False,
        max_input_per_million=_price(price, "prompt"),
        max_output_per_million=_price(price, "completion"),
        max_per_request=_price(price, "request"),
        no_data_collection=collection == "deny",
        zero_retention=_flag(provider, "zdr") is True,
        needed_fields=frozenset(body) - _ROUTING_FIELDS if _flag(provider, "require_parameters") else frozenset(),
        unjudged=_unjudged(provider, price),
        across_models=across_models,
    )


_PROVIDER_FIELDS = (
    "order",
    "allow_fallbacks",
    "require_parameters",
    "data_collection",
    "zdr",
    "enforce_distillable_text",
    "only",
    "ignore",
    "quantizations",
    "sort",
    "max_price",
    "preferred_min_throughput",
    "preferred_max_latency",
)
"""The members of OpenRouter's `provider`. The last two are wishes, not restrictions: only providers that know them act
on them. Source: https://openrouter.ai/docs/guides/routing/provider-selection"""
_ROUTING_FIELDS = frozenset({"model", "models", "provider", "route", "transforms", "plugins"})
"""Fields of a body that say where it goes, on which the router itself acts."""


def _flag(provider: Mapping[str, Any], name: str) -> bool | None:
    value = provider.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"'provider.{name}' must be true or false.", f"provider.{name}")
    return value


def _unjudged(provider: Mapping[str, Any], price: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the restrictions that nothing here knows of a backend."""
    names: list[str] = []
    if _strings(provider, "quantizations"):
        names.append("provider.quantizations")
    if _flag(provider, "enforce_distillable_text"):
        names.append("provider.enforce_distillable_text")
    for name in price:
        if name not in ("prompt", "completion", "request"):
            _price(price, name)
            names.append(f"provider.max_price.{name[:80]}")
    return tuple(names)


def _sort(value: object) -> tuple[Sort, bool]:
    """Return the order that `provider.sort` asks for, and whether it orders the backends of all models together."""
    partition = None
    if isinstance(value, dict) and value:
        partition = value.get("partition")
        value = value.get("by")
        if partition not in (None, "model", "none"):
            raise bad_request("'provider.sort.partition' must be model or none.", "provider.sort")
    if value is None:
        return "", False
    sorts: dict[str, Sort] = {"price": "cheapest", "latency": "fastest", "throughput": "fastest"}
    if not isinstance(value, str) or value not in sorts:
        raise bad_request("'provider.sort' must be price, latency or throughput.", "provider.sort")
    return sorts[value], partition == "none"


def _strings(provider: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = provider.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise bad_request(f"'provider.{name}' must be an array of names.", f"provider.{name}")
    return tuple(v.lower() for v in value)


def _price(price: Mapping[str, Any], name: str) -> float | None:
    value = price.get(name)
    if value is None:
        return None
    try:
        limit = -1.0 if isinstance(value, bool) else float(value)  # OpenRouter accepts decimal text, too
    except (TypeError, ValueError):
        limit = -1.0
    if not limit >= 0:
        where = f"provider.max_price.{name}"
        raise bad_request(f"'{where}' must be a number of USD per million tokens, 0 or more.", where)
    return limit
