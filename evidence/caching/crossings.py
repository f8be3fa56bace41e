"""Generated requests through a whole router with its cache on, most of which differ from an earlier one in one thing.

What makes two requests the same is said here once more, by what docs/caching.md promises and not by the router's
functions. Every call of a backend gets an answer with a number of its own, so that a stored answer shows for which
request it was made.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.openai_wire import DONE, event
from spillway_router.testing.upstream import Arrival

AT_ONCE = 8
CONFIG = """
cache: {enabled: true, default: true, sampled: true, max_mb: 512}
privacy: {keywords: [marigold]}
limits: {in_flight: 4096}
"""
KEYS = {
    "paid": KeySpec("paid", tier="paid", may_route=True),
    "other paid": KeySpec("other paid", tier="paid", may_route=True),
    "free": KeySpec("free", tier="free", may_route=True),
    "private": KeySpec("private", may_route=True, privacy="local-only"),
}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
TEXTS = (*(f"What is {n} times {m}?" for n in range(6) for m in range(5)), "Is a marigold a flower?")
_FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0, 0.0, 0.7, 1),
    "top_p": (0.5, 1),
    "seed": (1, 2, None),
    "max_tokens": (16, 17),
    "stop": ("a", ["a"], ["a", "b"]),
    "logit_bias": ({"1": 1}, {"1": 2}),
    "presence_penalty": (0.5, -0.5),
    "response_format": ({"type": "json_object"}, {"type": "text"}),
    "a_new_parameter": (True, 1, "1", {"x": 1, "y": 2}, {"y": 2, "x": 1}),
}
_CHAT_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "tools": ([_FUNCTION], [{**_FUNCTION, "function": {"name": "g"}}], [_FUNCTION, _FUNCTION]),
    "tool_choice": ("auto", "none"),
    "n": (1, 2),
    "system": ("Be short.", "Be long."),
    "stream": (True,),
    "reasoning_effort": ("low", "high"),
}
_HEADERS: Mapping[str, tuple[str, ...]] = {
    "x-spillway-route": ("local",),
    "x-spillway-privacy": ("local-only",),
    "x-spillway-min-confidence": ("0.5", "0.6"),
    "x-spillway-max-cost-usd": ("1", "2"),
    "openai-beta": ("one", "two"),
}
_LABELS: Mapping[str, tuple[Any, ...]] = {
    "user": ("anna", "ben"),
    "metadata": ({"trace": "1"}, {"trace": "2"}),
    "prompt_cache_key": ("1", "2"),
}
_WITHOUT_LABELS = ("/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
_NUMBER = re.compile(rb'"model": ?"n-([0-9]+)-"')
_USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
_MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who asks, where, with which headers, fields and labels. `changed` names what differs from an earlier
    one, empty if nothing does that matters."""

    key: str
    path: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    changed: str = ""

    def identity(self) -> str:
        """Everything that may change the answer, as text. JSON keeps 1, 1.0 and true apart, and the order of keys."""
        all_fields, headers = dict(self.fields), dict(self.headers)
        if self.path == "/v1/messages":
            all_fields.setdefault("max_tokens", 16)
            headers.pop("openai-beta", None)  # it stays in the router there
        fields = sorted((name, json.dumps(value)) for name, value in all_fields.items())
        return json.dumps([self.key, self.path, self.text, sorted(headers.items()), fields])

    def body(self, shuffled: random.Random) -> bytes:
        """The body, its top-level fields in any order."""
        body = {"model": "auto", **self.fields, **self.labels}
        if self.path in ("/v1/chat/completions", "/v1/messages"):
            body["messages"] = [{"role": "user", "content": self.text}]
        else:
            body["prompt" if self.path == "/v1/completions" else "input"] = self.text
        if self.path == "/v1/responses":
            body["store"] = False
        if self.path == "/v1/messages":
            body.setdefault("max_tokens", 16)
        items = list(body.items())
        shuffled.shuffle(items)
        return json.dumps(dict(items)).encode()


@dataclass(slots=True)
class Crossings:
    """What was asked, and which stored answers went to a request that is not the one they were made for. `tried` counts
    by what was changed, `missed` the requests that were asked before and got no stored answer."""

    requests: int = 0
    hits: int = 0
    repeated: int = 0
    missed: int = 0
    crossed: list[str] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)


def changes() -> frozenset[str]:
    """Return the names of everything that `generated` changes."""
    return frozenset({"key", "path", "text", *_FIELDS, *_CHAT_FIELDS, *_HEADERS})


def generated(count: int, seed: int) -> list[Asked]:
    """Return so many requests. A third repeats an earlier one but for labels, the others change one thing of one."""
    rng = random.Random(seed)
    asked = [Asked("paid", path, TEXTS[0], fields={"temperature": 0}) for path in PATHS]
    while len(asked) < count:
        earlier = rng.choice(asked[-400:])
        if rng.random() < 1 / 3:
            name = rng.choice(list(_LABELS))
            labels = {} if earlier.path in _WITHOUT_LABELS else {name: rng.choice(_LABELS[name])}
            asked.append(replace(earlier, labels=labels, changed=""))
        else:
            asked.append(_changed(earlier, rng))
    return asked


def _changed(earlier: Asked, rng: random.Random) -> Asked:
    kind = rng.choice(("key", "path", "text", "header", "field", "field", "field"))
    if kind == "key":
        return replace(earlier, key=rng.choice([key for key in KEYS if key != earlier.key]), changed=kind)
    if kind == "path":
        kept = {name: value for name, value in earlier.fields.items() if name not in _CHAT_FIELDS}
        path = rng.choice([path for path in PATHS if path != earlier.path])
        return replace(earlier, path=path, fields=kept, labels={}, changed=kind)
    if kind == "text":
        return replace(earlier, text=rng.choice([text for text in TEXTS if text != earlier.text]), changed=kind)
    if kind == "header":
        name = rng.choice(list(_HEADERS))
        values = [None if name in earlier.headers else "", *_HEADERS[name]]
        return replace(earlier, headers=_with(earlier.headers, name, rng.choice(values)), changed=name)
    pools = {**_FIELDS, **(_CHAT_FIELDS if earlier.path == PATHS[0] else {})}
    name = rng.choice(list(pools))
    value = rng.choice([None, *pools[name]])
    return replace(earlier, fields=_with(earlier.fields, name, value), changed=name)


def _with(members: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The members with this one set, or without it if the value is None or empty."""
    rest = {other: inner for other, inner in members.items() if other != name}
    return rest if value is None or value == "" else {**rest, name: value}


async def try_requests(count: int, seed: int = 1, at_once: int = AT_ONCE) -> Crossings:
    """Send generated requests, several at once, and find the stored answers that crossed.

    One after the other every repeat gets the stored answer. Several at once miss those whose first answer is not there
    yet.
    """
    numbers = itertools.count(1)
    async with FaultUpstream() as own, FaultUpstream() as paid:
        own.choose = paid.choose = lambda arrival: _answer(arrival, next(numbers))
        async with routing(settings(local(own), cloud(paid), more=CONFIG)) as router:
            tokens = {name: _key(router, spec) for name, spec in KEYS.items()}
            asked = generated(count, seed)
            replies: list[tuple[int, bool] | None] = [None] * count
            places = iter(enumerate(asked))
            senders = [_send(router.url, places, tokens, replies, seed + n) for n in range(at_once)]
            await asyncio.gather(*senders)
    return _judged(asked, replies)


def _judged(asked: list[Asked], replies: list[tuple[int, bool] | None]) -> Crossings:
    seen = Crossings(requests=len(asked))
    maker: dict[int, Asked] = {}
    for one, reply in zip(asked, replies, strict=True):
        if reply is not None and not reply[1]:
            maker[reply[0]] = one
    before: set[str] = set()
    for one, reply in zip(asked, replies, strict=True):
        identity = one.identity()
        seen.tried[one.changed or "labels"] += 1
        if reply is None:
            continue
        number, hit = reply
        seen.hits += hit
        seen.repeated += identity in before
        seen.missed += identity in before and not hit
        before.add(identity)
        if hit and (number not in maker or maker[number].identity() != identity):
            seen.crossed.append(f"{one} got the answer to {maker.get(number)}")
    return seen


def _key(router: Router, spec: KeySpec) -> str:
    keys = KeyStore(router.ledger.keys)
    return keys.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0).token


async def _send(
    url: str, places: Any, tokens: Mapping[str, str], replies: list[tuple[int, bool] | None], seed: int
) -> None:
    """Send requests one after the other on one connection, and keep the number of each answer and whether it was a
    stored one; None for a refusal."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    rng = random.Random(seed)
    for place, one in places:
        body = one.body(rng)
        lines = [f"POST {one.path} HTTP/1.1", "host: x", f"authorization: Bearer {tokens[one.key]}"]
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in one.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer = await _body(reader, head)
        number = _NUMBER.search(answer)
        if number is not None and head.startswith(b"http/1.1 200"):
            replies[place] = (int(number[1]), b"x-spillway-decision: cache" in head)
    writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    length = re.search(rb"content-length: ([0-9]+)", head)
    if length is not None:
        return await reader.readexactly(int(length[1]))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


def _answer(arrival: Arrival, number: int) -> Answer:
    """An answer in the shape of its endpoint, whose model has the number."""
    name = f"n-{number}-"
    if arrival.path.endswith("/chat/completions"):
        places = range(arrival.json.get("n") or 1)
        if arrival.json.get("stream"):
            opening = [{"index": n, "delta": {"content": "hi"}, "finish_reason": None} for n in places]
            ending = [{"index": n, "delta": {}, "finish_reason": "stop"} for n in places]
            return Answer.stream(
                event({"model": name, "choices": opening}) + event({"model": name, "choices": ending}) + DONE
            )
        message = {"role": "assistant", "content": "hi"}
        choices = [{"index": n, "message": message, "finish_reason": "stop"} for n in places]
        return Answer.json({"model": name, "choices": choices, "usage": _USAGE})
    if arrival.path.endswith("/completions"):
        choice = {"index": 0, "text": "hi", "finish_reason": "stop"}
        return Answer.json({"model": name, "choices": [choice], "usage": _USAGE})
    if arrival.path.endswith("/embeddings"):
        return Answer.json({"model": name, "data": [{"index": 0, "embedding": [0.1]}], "usage": _USAGE})
    if arrival.path.endswith("/responses"):
        return Answer.json({"model": name, "id": "r", "status": "completed", "output": [_MESSAGE], "usage": _USAGE})
    ended = {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"}
    return Answer.json({"model": name, **ended, "usage": _USAGE})
