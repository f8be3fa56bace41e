"""The list of models: what requests may ask for, with context, capabilities, prices and retirement.

It has OpenAI's shape with the fields of OpenRouter's list (openrouter.ai/docs/models), which many clients read, and our
own under `spillway`; or Anthropic's shape for clients that say `anthropic-version`. The clients of both protocols ask
the same paths. Anthropic's own libraries send the header with every request, and read dates and names that OpenAI's
shape lacks.

A name that stands for several backends can do what any of them can, because the others are left out where they can't.
Its price is the dearest one, so that nobody who counts on it pays more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.model import Backend, Capability, Signals

_ANTHROPIC_HEADER = "anthropic-version"
_ALWAYS = ("max_tokens", "temperature", "top_p", "stop", "stream")
_PARAMETERS: Mapping[Capability, tuple[str, ...]] = {
    "tools": ("tools", "tool_choice"),
    "json_schema": ("response_format", "structured_outputs"),
    "logprobs": ("logprobs", "top_logprobs"),
}
_PER_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A name that requests may ask for, and the backends that it stands for, in order."""

    name: str
    backends: tuple[Backend, ...]
    is_alias: bool = False


def speaks_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether the client expects Anthropic's shapes on a path that both protocols have."""
    return _ANTHROPIC_HEADER in headers


def model_entry(model: OfferedModel, signals: Signals, created_s: int, *, anthropic: bool) -> dict[str, Any]:
    """Describe one model. `created_s` counts seconds since 1970."""
    if anthropic:
        created_at = datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        named = {"type": "model", "id": model.name, "display_name": model.name}
        return {**named, "created_at": created_at, "lifecycle": "active"}
    context = _longest([_context_tokens(backend, signals) for backend in model.backends])
    can = frozenset[Capability]().union(*(_capabilities(backend, signals) for backend in model.backends))
    inputs = ["text", "image"] if "vision" in can else ["text"]
    makes = "embeddings" if all(backend.endpoints == {"embeddings"} for backend in model.backends) else "text"
    retirements = [backend.retired_on for backend in model.backends]
    return {
        "id": model.name,
        "object": "model",
        "created": created_s,
        "owned_by": "spillway",
        "name": model.name,
        "context_length": context,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{makes}",
            "input_modalities": inputs,
            "output_modalities": [makes],
        },
        "pricing": _pricing([backend.tariff for backend in model.backends if backend.tariff is not None]),
        "top_provider": {
            "context_length": context,
            "max_completion_tokens": max([backend.max_output_tokens for backend in model.backends], default=None),
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": [
            *_ALWAYS,
            *(name for one, names in _PARAMETERS.items() if one in can for name in names),
        ],
        "expiration_date": None if "" in retirements else max(retirements, default=None),
        "spillway": {
            "kind": "alias" if model.is_alias else "backend",
            "backends": [_backend_entry(backend) for backend in model.backends],
            "endpoints": sorted(frozenset[str]().union(*(backend.endpoints for backend in model.backends))),
        },
    }


def model_list(entries: Sequence[Mapping[str, Any]], anthropic: bool) -> dict[str, Any]:
    """Return the list of all models, in Anthropic's shape as its only page."""
    if not anthropic:
        return {"object": "list", "data": entries}
    names = [str(entry["id"]) for entry in entries]
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"data": entries, **ends, "has_more": False}


def _parameters(capabilities: frozenset[Capability]) -> list[str]:
    named = [name for capability, names in _PARAMETERS.items() if capability in capabilities for name in names]
    return [*_ALWAYS, *named]


def _backend_entry(backend: Backend) -> dict[str, Any]:
    return {
        "name": backend.name,
        "provider": backend.provider,
        "model": backend.model,
        "local": backend.local,
        "retires_on": backend.retired_on or None,
        "successor": backend.successor or None,
    }


def _context_tokens(backend: Backend, signals: Signals) -> int | None:
    """Return the context length: the configured one, or the engine's own where that is shorter."""
    latest = signals.backends.get(backend.name)
    lengths = [backend.context_tokens, None if latest is None else latest.engine_context_tokens]
    return min([length for length in lengths if length is not None], default=None)


def _capabilities(backend: Backend, signals: Signals) -> frozenset[Capability]:
    latest = signals.backends.get(backend.name)
    return backend.capabilities if latest is None else backend.capabilities - latest.engine_lacks


def _longest(lengths: Sequence[int | None]) -> int | None:
    return max([length for length in lengths if length is not None], default=None)


def _pricing(tariffs: Sequence[Tariff]) -> dict[str, str]:
    """Return the dearest of the prices in USD per token and per request, as decimal text; "0" on the own hardware."""
    cached = [
        price.input_per_million if price.cached_input_per_million is None else price.cached_input_per_million
        for price in tariffs
    ]
    return {
        "prompt": _per_token([price.input_per_million for price in tariffs]),
        "completion": _per_token([price.output_per_million for price in tariffs]),
        "input_cache_read": _per_token(cached),
        "request": _text(max([price.per_request for price in tariffs], default=Decimal(0))),
    }


def _per_token(per_million: Sequence[Decimal]) -> str:
    return _text(max(per_million, default=Decimal(0)) / _PER_MILLION)


def _text(usd: Decimal) -> str:
    return format(usd.normalize() + 0, "f") if usd else "0"
