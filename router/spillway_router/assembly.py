"""From Settings to the values the hot path works with: backends, policy, channels. Every mistake is told at once."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from spillway_router.config import Mistake, unset
from spillway_router.core.backlog import EngineRates, Slo
from spillway_router.core.model import Backend
from spillway_router.core.policy import ConfidenceRule, Policy
from spillway_router.core.tariff import Tariff, TariffError
from spillway_router.providers.base import CatalogueEntry, ProviderError, Target
from spillway_router.providers.catalogue import (
    capabilities_for,
    context_for,
    load_catalogue,
    max_output_for,
    provider_for,
    target,
    tariff_for,
)
from spillway_router.providers.transport import Pool, PoolLimits
from spillway_router.proxy.services import Channel, Limits
from spillway_router.settings import BackendPart, Settings

CLOUD_KEEPALIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """A backend with what is needed to reach it."""

    backend: Backend
    entry: CatalogueEntry
    target: Target
    base_url: str


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything derived from Settings. `off`: backends left out, each with the reason; they are not mistakes."""

    policy: Policy
    places: Mapping[str, Place]
    rates: Mapping[str, EngineRates]
    off: tuple[Mistake, ...]


def assemble(settings: Settings, environment: Mapping[str, str], today: date) -> Assembly | tuple[Mistake, ...]:
    """The Assembly, or the mistakes that prevent it. A provider without its key is simply off."""
    catalogue = load_catalogue()
    places: dict[str, Place] = {}
    off: list[Mistake] = []
    mistakes: list[Mistake] = []
    for part in settings.backends:
        where = f"backends.{part.name}"
        entry = catalogue.get(part.provider)
        if entry is None:
            known = ", ".join(sorted(catalogue))
            mistakes.append(Mistake(where, 0, f"provider {part.provider!r} is not known; use one of {known}"))
            continue
        variable = unset(part.api_key, environment)
        if variable:
            off.append(Mistake(where, 0, f"is off: ${{{variable}}} is not set; export {variable}"))
            continue
        key = part.api_key or environment.get(entry.key_variable, "")
        if not key and entry.key_variable and not (part.local or entry.local):
            off.append(Mistake(where, 0, f"is off: export {entry.key_variable}, or set api_key"))
            continue
        try:
            reach = target(entry, part.base_url, key or None)
            backend = _backend(part, entry, today)
        except (ProviderError, TariffError) as error:
            mistakes.append(Mistake(where, 0, str(error)))
            continue
        if isinstance(backend, Mistake):
            mistakes.append(backend)
            continue
        places[part.name] = Place(backend, entry, reach, part.base_url or entry.base_url)
    if mistakes:
        return tuple(mistakes)
    chains = {alias: tuple(n for n in chain if n in places) for alias, chain in settings.chains().items()}
    policy = Policy(
        _version(settings),
        {name: place.backend for name, place in places.items()},
        {alias: chain for alias, chain in chains.items() if chain},
        Slo(settings.slo.ttft_ms / 1000, settings.slo.tpot_ms / 1000),
        ConfidenceRule(settings.confidence.threshold, tuple(n for n in settings.confidence.escalate_to if n in places)),
    )
    return Assembly(policy, places, _rates(settings.backends), tuple(off))


def _backend(part: BackendPart, entry: CatalogueEntry, today: date) -> Backend | Mistake:
    local = entry.local if part.local is None else part.local
    tariff = None if local else _tariff(part, today)
    if tariff is None and not local:
        problem = f"has no known price for {part.model!r}; add price: {{input_per_million, output_per_million}}"
        return Mistake(f"backends.{part.name}", 0, problem)
    return Backend(
        part.name,
        part.provider,
        part.model,
        local,
        entry.endpoints,
        capabilities_for(entry, part.model),
        tariff,
        part.context_tokens or context_for(part.provider, part.model),
        min(part.max_output_tokens, max_output_for(part.provider, part.model) or part.max_output_tokens),
        entry.collects_data,
        entry.billing_on_cancel == "stops",
    )


def _tariff(part: BackendPart, today: date) -> Tariff | None:
    price = part.price
    if price is None:
        return tariff_for(part.provider, part.model, today)
    return Tariff(
        price.input_per_million,
        price.output_per_million,
        price.cached_input_per_million,
        price.per_request,
        price.valid_from,
        "config",
    )


def _rates(parts: Sequence[BackendPart]) -> dict[str, EngineRates]:
    found: dict[str, EngineRates] = {}
    for part in parts:
        rates = EngineRates()
        if part.prefill_tokens_per_s is not None:
            rates = replace(rates, prefill_tokens_per_s=part.prefill_tokens_per_s)
        if part.max_sequences is not None:
            rates = replace(rates, max_sequences=part.max_sequences)
        found[part.name] = rates
    return found


def _version(settings: Settings) -> str:
    """A short digest of everything that routing depends on; secrets are left out."""
    text = settings.model_dump_json(
        include={"backends", "aliases", "slo", "confidence", "privacy", "budgets"},
        exclude={"backends": {"__all__": {"api_key"}}},
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def channels(assembly: Assembly, kept: Mapping[str, tuple[Target, Pool]]) -> dict[str, Channel]:
    """A channel per backend; pools of unchanged targets are kept with their connections."""
    tls: ssl.SSLContext | None = None
    found: dict[str, Channel] = {}
    for name, place in assembly.places.items():
        known = kept.get(name)
        if known is not None and known[0] == place.target:
            pool = known[1]
        else:
            if place.target.scheme == "https" and tls is None:
                tls = ssl.create_default_context()
            limits = PoolLimits() if place.backend.local else PoolLimits(keepalive_s=CLOUD_KEEPALIVE_S)
            pool = Pool(place.target, limits, tls)
        found[name] = Channel(place.backend, provider_for(place.entry), pool, _lines(place.backend))
    return found


def _lines(backend: Backend) -> bytes:
    """The header lines that name a backend in answers; a model's name may hold anything, a header may not."""
    model = "".join(c if c.isprintable() else "?" for c in backend.model).encode("ascii", "replace")
    return b"x-spillway-backend: %b\r\nx-spillway-model: %b\r\n" % (backend.name.encode(), model)


def limits(settings: Settings) -> Limits:
    """Bounds of one request in bytes and seconds."""
    part = settings.limits
    return Limits(
        body_bytes=int(part.body_mb * 1024 * 1024),
        body_s=part.body_s,
        first_event_s=part.first_event_s,
        answer_s=part.answer_s,
        stall_s=part.stall_s,
        in_flight=part.in_flight,
    )
