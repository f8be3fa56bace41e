"""The requests of a run, drawn from a seed: moments, bodies, keys, and the answers that both fakes know.

A plan is a file of JSON lines: a header with the shape, then one line per request, in the order of their moments.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from loadtests.fake_engine import answers
from loadtests.locust_runs.shapes import LoadShape, arrivals
from loadtests.simulator import trace
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, INSTRUCTION, canonical_json, generate, json_schema

CHAT, EXTRACT = "/v1/chat/completions", "/v1/documents/extract"
_WORDS = ("report", "value", "lens", "axial", "length", "clinic", "visit", "eyes", "note", "plan", "signal", "error")
_DOCUMENT_SEEDS = 400_000


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request, due after `at_s` seconds, with the name of the `key` to send.

    Its body has no model yet, so that one plan serves every policy.
    """

    at_s: float
    name: str
    path: str
    body: dict[str, Any]
    stream: bool = False
    key: str = "load"
    headers: dict[str, str] = field(default_factory=dict)
    answer_tokens: int = 0
    """Tokens of the expected answer, for answers without usage."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """The plan of a run: its shape, its requests in the order of their moments, and (message, answer) pairs for the
    fakes.
    """

    shape: LoadShape
    asks: tuple[PlannedRequest, ...]
    answers: tuple[tuple[str, str], ...]


Maker = Callable[[float], tuple[PlannedRequest, tuple[str, str] | None]]


class Chats:
    """Makes streamed chat requests with lengths drawn from the conversation trace."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"chats/{seed}")
        self._lengths = [(r.prompt_tokens, r.output_tokens) for r in trace.load("conv", limit=4000)]
        self._numbers = count(seed * 100_000)

    def __call__(self, at_s: float, lengths: tuple[int, int] | None = None) -> tuple[PlannedRequest, tuple[str, str]]:
        """Make one chat, with these prompt and output tokens if they are given."""
        prompt, output = lengths or self._rng.choice(self._lengths)
        text = words(next(self._numbers), prompt)
        body = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": output,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return PlannedRequest(at_s, "chat", CHAT, body, stream=True), (text, sentence(output))


class Documents:
    """Makes requests for JSON by schema from biometry reports, with whole answers; with `extract` for the document
    endpoint.
    """

    def __init__(self, seed: int, *, extract: bool = False) -> None:
        self._numbers = count(_DOCUMENT_SEEDS + seed * 10_000)
        self._extract = extract

    def __call__(self, at_s: float) -> tuple[PlannedRequest, tuple[str, str]]:
        """Make one document."""
        document = generate(HELD_OUT_SEEDS[next(self._numbers)])
        expected = (document.text, canonical_json(document.truth))
        schema = {"type": "json_schema", "json_schema": {"name": "biometry", "schema": json_schema()}}
        if self._extract:
            body = {"text": document.text, "parser": "none", "review": False}
            return PlannedRequest(
                at_s, "extract", EXTRACT, body, answer_tokens=answers.count_tokens(expected[1])
            ), expected
        messages: list[dict[str, str]] = [{"role": "user", "content": INSTRUCTION + document.text}]
        body = {"messages": messages, "max_tokens": 200, "temperature": 0, "response_format": schema}
        return PlannedRequest(at_s, "document", CHAT, body), expected


class Embeddings:
    """Makes requests for embeddings of four short texts."""

    def __init__(self, seed: int) -> None:
        self._numbers = count(seed * 100_000 + 50_000)

    def __call__(self, at_s: float) -> tuple[PlannedRequest, None]:
        """Make one request."""
        return PlannedRequest(
            at_s, "embedding", "/v1/embeddings", {"input": [words(next(self._numbers), 40) for _ in range(4)]}
        ), None


class Mixed:
    """Combines several makers by share, under several keys."""

    def __init__(self, makers: Sequence[tuple[Maker, float]], keys: Sequence[str], seed: int) -> None:
        self._makers = [maker for maker, _ in makers]
        self._shares = [share for _, share in makers]
        self._keys = keys
        self._rng = random.Random(f"mixed/{seed}")

    def __call__(self, at_s: float) -> tuple[PlannedRequest, tuple[str, str] | None]:
        """Make one request of one of the makers."""
        ask, expected = self._rng.choices(self._makers, self._shares)[0](at_s)
        return replace(ask, key=self._rng.choice(self._keys)), expected


def by_shape(shape: LoadShape, make: Maker, seed: int) -> RequestPlan:
    """Plan requests at the moments of a Poisson process."""
    return _plan(shape, (make(moment) for moment in arrivals(shape, seed)))


def by_trace(name: str, speed: float, seconds: float, seed: int, begin_s: float = 120.0) -> RequestPlan:
    """Plan a part of a trace, its time compressed by `speed`, with its own moments, prompt and output lengths.

    `begin_s` is where the part begins, in seconds of the trace. The conversation trace starts slowly; after two minutes
    it has its usual rate.
    """
    coming = ((row, (row.arrival_s - begin_s) / speed) for row in trace.load(name, limit=4000))
    rows = [(row, at) for row, at in coming if 0 <= at < seconds]
    chats = Chats(seed)
    drawn = [chats(at, (row.prompt_tokens, max(1, row.output_tokens))) for row, at in rows]
    return _plan(LoadShape(((0.0, len(rows) / seconds), (seconds, len(rows) / seconds))), drawn)


def _plan(shape: LoadShape, drawn: Iterable[tuple[PlannedRequest, tuple[str, str] | None]]) -> RequestPlan:
    pairs = list(drawn)
    return RequestPlan(
        shape, tuple(ask for ask, _ in pairs), tuple(expected for _, expected in pairs if expected is not None)
    )


def words(number: int, tokens: int) -> str:
    """Return a text of so many tokens (at least 4, by the fakes' count) with a unique beginning, so that no prefix
    cache helps.
    """
    rng = random.Random(f"words/{number}")
    lead = f"{number:09d} "
    return lead + " ".join(rng.choices(_WORDS, k=max(1, tokens - 3)))


def sentence(tokens: int) -> str:
    """Return an answer of so many tokens."""
    return "".join(" " + _WORDS[i % len(_WORDS)] for i in range(tokens))


def write(path: Path, plan: RequestPlan, model: str, keys: dict[str, str]) -> None:
    """Write the plan for one system: its model name in every body, the secrets of its keys in every header."""
    lines = [json.dumps({"corners": plan.shape.corners})]
    for ask in plan.asks:
        headers = dict(ask.headers)
        if secret := keys.get(ask.key):
            headers["authorization"] = f"Bearer {secret}"
        lines.append(json.dumps({**asdict(ask), "body": {"model": model, **ask.body}, "headers": headers}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o600)  # the file holds keys


def lengths(plan: RequestPlan) -> Iterator[tuple[float, int, int]]:
    """Return the moment, prompt tokens and output tokens of each chat, for the simulator."""
    for ask in plan.asks:
        if ask.name == "chat":
            yield ask.at_s, len(str(ask.body["messages"][0]["content"]).split()) + 2, int(ask.body["max_tokens"])
