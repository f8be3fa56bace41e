"""Every way to a backend, asked by keys that may not use all of them, through a whole router with sockets.

What a key may not reach is said here once more, by what the rules of keys promise (docs/api.md) and not by the router's
functions. Every request carries a tag, by which the backends that got it are known.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spillway_router.config.secret_keys import SECRET_KEY_VARIABLE
from spillway_router.core.money.users import user_id
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.tables.provider_keys import ProviderPlace
from spillway_router.ledger.vault import KEY_BYTES, NONCE_BYTES
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.upstream import Arrival

AT_ONCE = 8
BACKENDS = ("local", "cloud", "second", "own")
"""An engine, two clouds, and a provider that callers reach with keys of their own."""
CLOUDS = frozenset(BACKENDS) - {"local"}
RULES = """
aliases: {auto: {chain: [local, cloud]}, lone: {chain: [local]}, out: {chain: [cloud, local]}, other: {chain: [second]}}
confidence: {threshold: 0.9, escalate_to: [second]}
retention: {minutes: 5}
"""
KEYS: Mapping[str, KeySpec] = {
    "free": KeySpec("free", may_route=True),
    "plain": KeySpec("plain"),
    "only local": KeySpec("only local", may_route=True, backends=("local",)),
    "only second": KeySpec("only second", may_route=True, backends=("second",)),
    "local and cloud": KeySpec("local and cloud", may_route=True, backends=("local", "cloud")),
    "only lone": KeySpec("only lone", may_route=True, models=("lone",)),
    "only second-m": KeySpec("only second-m", models=("second-m",)),
    "private": KeySpec("private", may_route=True, privacy="local-only"),
}
_LISTS: Mapping[str, frozenset[str]] = {
    "only local": frozenset(BACKENDS) - {"local"},
    "only second": frozenset(BACKENDS) - {"second"},
    "local and cloud": frozenset({"second", "own"}),
    "private": CLOUDS,
}
"""What is out of reach of these keys, whatever they ask for."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask. `names` are the aliases that the request asks for. `asks_better`: it is for a better answer or by
    the caller's own provider key, which keys without a list may ask for."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset({"auto"})
    asks_better: bool = False


_NOBODY = frozenset[str]()
WAYS = (
    Way("alias auto", {"model": "auto"}),
    Way("no model", {}),
    Way("alias lone", {"model": "lone"}, names=frozenset({"lone"})),
    Way("alias out", {"model": "out"}, names=frozenset({"out"})),
    Way("alias other", {"model": "other"}, names=frozenset({"other"})),
    Way("fastest", {"model": "auto:fastest"}),
    Way("cheapest", {"model": "auto:cheapest"}),
    Way("pin", {"model": "cloud/cloud-m"}, names=_NOBODY),
    Way("pin of the second", {"model": "second/second-m"}, names=_NOBODY),
    Way("pin of the engine", {"model": "local/m"}, names=_NOBODY),
    Way("backend", {"model": "cloud"}, names=_NOBODY),
    Way("model", {"model": "second-m"}, names=_NOBODY),
    Way("model, cheapest", {"model": "cloud-m:cheapest"}, names=_NOBODY),
    Way("models", {"model": "none", "models": ["cloud-m", "second-m"]}, names=_NOBODY),
    Way("provider.only", {"provider": {"only": ["cloud", "second"]}}),
    Way("provider.ignore", {"provider": {"ignore": ["local", "vllm"]}}),
    Way("provider.order", {"provider": {"order": ["second", "cloud"]}}),
    Way("provider.sort", {"provider": {"sort": "price"}}),
    Way("hint of a route", headers={"x_spillway_route": "cloud"}),
    Way("hint of a latency", headers={"x_spillway_slo_ttft_ms": "1"}),
    Way("hint of a confidence", headers={"x_spillway_min_confidence": "1"}),
    Way("better than", asks_better=True),
    Way("retry", asks_better=True),
    Way("stored response", asks_better=True),
    Way(
        name="own key",
        fields={"model": "x"},
        headers={"x_spillway_provider": "groq", "x_spillway_provider_key": "k"},
        names=_NOBODY,
        asks_better=True,
    ),
    Way("stored key", {"model": "x"}, {"x_spillway_provider": "groq"}, names=_NOBODY, asks_better=True),
    Way(
        name="stored key of a user",
        fields={"model": "x", "user": "ann"},
        headers={"x_spillway_provider": "groq"},
        names=_NOBODY,
        asks_better=True,
    ),
)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}
_UNSURE = {"token": "hi", "logprob": -5.0, "top_logprobs": [{"token": "hi", "logprob": -5.0}]}
_TEXT = {"type": "output_text", "text": "hi", "annotations": []}
_MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [_TEXT]}
_ANSWERS: Mapping[str, Any] = {
    "/chat/completions": {
        "choices": [
            {
                "index": 0,
                "message": {"content": "hi"},
                "finish_reason": "stop",
                "logprobs": {"content": [_UNSURE]},
            }
        ]
    },
    "/completions": {"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]},
    "/embeddings": {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}]},
    "/responses": {"id": "resp_1", "object": "response", "status": "completed", "output": [_MESSAGE]},
    "/messages": {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"},
}
_DOWN: Mapping[str, frozenset[str]] = {
    "all are well": frozenset(),
    "the engine is down": frozenset({"local"}),
    "the engine and a cloud are down": frozenset({"local", "cloud"}),
}
_TAG = re.compile(rb"tag-[0-9]+-")


@dataclass(slots=True)
class Bypasses:
    """What was asked, and which of it reached a backend that its key may not use. `reached`: requests at backends by
    key; without any, the rules would be tried on nothing."""

    requests: int = 0
    bypassed: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    at_backends: Counter[str] = field(default_factory=Counter)


def forbidden(key: str, way: Way, down: frozenset[str]) -> frozenset[str]:
    """Return the backends that a request must not reach."""
    if key in _LISTS:
        return _LISTS[key]
    if key == "only lone":  # the alias brings the policy behind it, escalation too; nothing else is listed
        return frozenset({"cloud", "own"}) if "lone" in way.names or way.asks_better else frozenset(BACKENDS)
    if key == "only second-m":
        return frozenset(BACKENDS) - {"second"}
    if key == "plain" and not way.asks_better:
        return _forbidden_without_permit(way, down)
    return frozenset()


def _forbidden_without_permit(way: Way, down: frozenset[str]) -> frozenset[str]:
    """Return what a key without lists that may not choose must not reach: what the policy would not have chosen."""
    if way.names & {"out", "other"}:  # the operator put a cloud first
        return frozenset({"own"})
    if not way.names or way.name in ("provider.only", "provider.ignore", "provider.order", "hint of a route"):
        return CLOUDS
    if way.name == "hint of a confidence":  # the answers here are unsure by the configured threshold, too
        return frozenset({"own"})
    return frozenset({"own"}) if "local" in down else frozenset({"own", "cloud"})


async def try_keys(requests: int, *, fault: bool = False) -> Bypasses:
    """Ask so many times, by all keys, ways, endpoints and states of the backends. `fault`: the keys have no rules."""
    seen = Bypasses()
    down: set[str] = set()
    async with (
        FaultUpstream() as engine,
        FaultUpstream() as one,
        FaultUpstream() as two,
        FaultUpstream() as own,
    ):
        upstreams = dict(zip(BACKENDS, (engine, one, two, own), strict=True))
        for name, upstream in upstreams.items():
            upstream.choose = lambda arrival, name=name: _answer(arrival, is_down=name in down)
        catalogue = dict(load_catalogue())
        catalogue["groq"] = replace(catalogue["groq"], base_url=own.url)
        text = settings(local(engine), cloud(one), cloud(two, "second"), more=RULES)
        environment = {SECRET_KEY_VARIABLE: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}
        async with routing(text, environment=environment, catalogue=catalogue) as router:
            await _ask_all(router, upstreams, seen, down, requests, fault=fault)
    return seen


async def _ask_all(
    router: Router,
    upstreams: Mapping[str, FaultUpstream],
    seen: Bypasses,
    down: set[str],
    requests: int,
    *,
    fault: bool,
) -> None:
    asker = _Asker(router, {name: _bearer(router, KEYS["free"] if fault else spec) for name, spec in KEYS.items()})
    states = itertools.cycle(_DOWN.values())
    batch_size = len(KEYS) * AT_ONCE
    questions = _questions()
    while seen.requests < requests:
        down.clear()
        down |= (state := next(states))
        batch = list(itertools.islice(questions, batch_size))
        router.forget_failures()
        for at in range(0, batch_size, AT_ONCE):
            tags = await asyncio.gather(*(asker.ask(*question) for question in batch[at : at + AT_ONCE]))
            _judge(dict(zip(tags, batch[at : at + AT_ONCE], strict=True)), upstreams, seen, state)
        seen.requests += batch_size


def _questions() -> Iterator[tuple[str, Way, str]]:
    """Yield key, way and path, so that within the usual number of requests all meet in every state of the backends."""
    for path, way, key in itertools.cycle(itertools.product(PATHS, WAYS, KEYS)):
        yield key, way, path


def _judge(
    questions: Mapping[bytes, tuple[str, Way, str]],
    upstreams: Mapping[str, FaultUpstream],
    seen: Bypasses,
    down: frozenset[str],
) -> None:
    """Note which of the latest requests reached a backend, and which should not have."""
    for name, upstream in upstreams.items():
        for tag in {match for arrival in upstream.seen for match in _TAG.findall(arrival.body)}:
            if tag not in questions:
                continue
            key, way, path = questions[tag]
            seen.reached[key] += 1
            seen.at_backends[name] += 1
            if name in forbidden(key, way, down):
                seen.bypassed.append(f"{key}: {way.name} on {path} reached {name}")
        upstream.seen.clear()


class _Asker:
    """Sends requests with the keys, each with a tag of its own, and what has to come before some of them."""

    def __init__(self, router: Router, keys: Mapping[str, Mapping[str, str]]) -> None:
        self._router = router
        self._keys = keys
        self._numbers = itertools.count(1)

    async def ask(self, key: str, way: Way, path: str) -> bytes:
        """Ask once; return the tag."""
        tag = f"tag-{next(self._numbers)}-"
        headers = {**way.headers, **self._keys[key]}
        if way.name == "better than":
            before = await self._post(path, _content("before"), self._keys[key])
            headers["x_spillway_better_than"] = before.headers["x-request-id"]
        elif way.name == "stored response":
            before = await self._post("/v1/responses", _content("before"), self._keys[key])
            response_id = before.json().get("id", "none") if before.status_code == 200 else "none"
            await self._post("/v1/responses", {**_content(tag), "previous_response_id": response_id}, headers)
            return tag.encode()
        answer = await self._post(path, {**_content(tag), **way.fields}, headers)
        if way.name == "retry":
            rating = {"request_id": answer.headers["x-request-id"], "rating": 1, "retry": True}
            await self._post("/v1/feedback", rating, self._keys[key])
        return tag.encode()

    async def _post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        return await self._router.post(dict(body), path, **headers)


def _content(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "prompt": text, "input": text, "max_tokens": 5}


def _answer(arrival: Arrival, *, is_down: bool) -> Answer:
    if is_down:
        return Answer.json({"error": {"message": "down"}}, 500)
    for end, value in _ANSWERS.items():
        if arrival.path.endswith(end):
            return Answer.json({**value, "usage": _USAGE})
    return Answer.json({"error": {"message": "unknown path"}}, 404)


def _bearer(router: Router, spec: KeySpec) -> dict[str, str]:
    new = KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
    for user in ("", user_id(new.record.id, "ann")):
        place = ProviderPlace(new.record.id, user, "groq")
        router.runtime.provider_keys.put(place, "stored", secrets.token_bytes(NONCE_BYTES), 0)
    return {"authorization": f"Bearer {new.token}"}
