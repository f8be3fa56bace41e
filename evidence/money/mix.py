"""Random fake providers, and random requests to them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evidence.money.parts import MoneyRequest

MOST_OUT = 64
"""The longest answer of a fake provider, in tokens; the routers are configured with the same limit."""
FAILURES = ("busy", "broken", "drop", "garbage", "cut", "refused", "late")
_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
_PROVIDERS = {"openai": "stops", "groq": "continues", "generic": "continues"}
"""Catalogue entries, and whether their fake providers stop or continue billing when the client hangs up."""


@dataclass(frozen=True, slots=True)
class PaidBackend:
    """A paid backend: its fake provider, and its entry in the router's configuration."""

    name: str
    till: Mapping[str, Any]
    backend: Mapping[str, Any]


def random_backend(rng: random.Random, name: str, url: str, provider: str = "") -> PaidBackend:
    """Return a backend with random prices; one in three has a price per request."""
    provider = provider or rng.choice(list(_PROVIDERS))
    prices = {
        part: f"{rng.randrange(1, 20_000_000) / 10**6:.6f}" for part in ("input", "output", "cached", "reasoning")
    }
    per_request = f"{rng.randrange(10**6) / 10**9:.9f}" if rng.random() < 0.3 else "0"
    till = {"price": {**prices, "request": per_request}, "on_cancel": _PROVIDERS[provider], "most_out": MOST_OUT}
    price = {
        "input_per_million": prices["input"],
        "output_per_million": prices["output"],
        "cached_input_per_million": prices["cached"],
        "reasoning_per_million": prices["reasoning"],
        "per_request": per_request,
    }
    backend = {
        "name": name,
        "provider": provider,
        "base_url": f"{url}/{name}/v1",
        "model": f"{name}-m",
        "api_key": "k",
        "max_output_tokens": MOST_OUT,
        "on_disconnect": _PROVIDERS[provider],
        "price": price,
    }
    return PaidBackend(name, till, backend)


def random_request(
    rng: random.Random,
    places: Sequence[str],
    model: str,
    *,
    failures: float,
    aborts: float,
    kinds: Sequence[str] = FAILURES,
) -> MoneyRequest:
    """Return a request of any kind that instructs each fake provider; some requests fail, and some clients leave."""
    kind = rng.choices(("chat", "completions", "embeddings"), (6, 1, 1))[0]
    stream = kind != "embeddings" and rng.random() < 0.5
    leaves = rng.random() < aborts
    plans = {name: _plan(rng, failures, kinds, slow=leaves) for name in places}
    text = json.dumps({**plans, "filler": "x" * rng.randrange(200)})
    body: dict[str, Any] = {"model": model}
    if kind == "chat":
        body |= {"messages": [{"role": "user", "content": text}]}
    else:
        body |= {"prompt" if kind == "completions" else "input": text}
    if stream:
        body["stream"] = True
    if kind != "embeddings" and rng.random() < 0.7:
        body["max_tokens"] = rng.randrange(1, MOST_OUT + 1)
    return MoneyRequest(_PATHS[kind], body, leave_s=rng.uniform(0.0, 0.12) if leaves else None)


def _plan(rng: random.Random, failures: float, kinds: Sequence[str], *, slow: bool) -> Mapping[str, Any]:
    prompt, out = rng.randrange(1, 400), rng.randrange(1, MOST_OUT + 1)
    plan: dict[str, Any] = {"prompt": prompt, "out": out, "step": rng.choice((1, 3, 8, 64))}
    plan["cached"] = rng.randrange(prompt) if rng.random() < 0.3 else 0
    plan["reasoning"] = rng.randrange(out) if rng.random() < 0.3 else 0
    if rng.random() < failures:
        plan["do"] = rng.choice(kinds)
    if rng.random() < 0.05:
        plan["usage"] = False
    if slow:
        plan["pause"] = rng.uniform(0.001, 0.02)
    return plan
