"""From Settings to the values the hot path works with: backends, policy, channels. Every mistake is told at once."""

from __future__ import annotations

import hashlib
import math
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from spillway_router.config.confidence import fingerprinted, scoring_rules, threshold
from spillway_router.config.load import ConfigError, ConfigProblem, Loaded, located, unset
from spillway_router.config.settings import ALL_CLOUDS, BackendPart, PricePart, Settings
from spillway_router.core.money.degrade import Ladder, Rung, rungs_of
from spillway_router.core.money.tariff import Tariff, TariffError
from spillway_router.core.routing.backlog import EngineRates, Slo
from spillway_router.core.routing.model import Backend, Capability
from spillway_router.core.routing.policy import ConfidenceRule, Policy
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Target
from spillway_router.prices import book as prices
from spillway_router.prices.rows import ModelRecord
from spillway_router.prices.status import PriceStatus, price_status
from spillway_router.providers.catalogue import (
    load_catalogue,
    provider_for,
    target,
)
from spillway_router.providers.interface import CatalogueEntry, ProviderError
from spillway_router.proxy.client.replies import naming_lines
from spillway_router.proxy.exchange.active_config import BackendRoute, Limits, ScoringRules

CLOUD_KEEPALIVE_S = 30.0
_NO_PRICE = (
    "has no known price for {!r}; add price: {{input_per_million, output_per_million}}, or take in a price list with "
    "`spillway prices import FILE`"
)


@dataclass(frozen=True, slots=True)
class BackendTarget:
    """A backend with what is needed to reach it."""

    backend: Backend
    entry: CatalogueEntry
    target: Target
    base_url: str


@dataclass(frozen=True, slots=True)
class _Offer:
    tariff: Tariff | None
    price_status: PriceStatus


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything derived from Settings. `off`: backends left out, each with the reason; they are not mistakes.
    `warnings`: what works but should be looked at, such as a stale price."""

    policy: Policy
    places: Mapping[str, BackendTarget]
    rates: Mapping[str, EngineRates]
    off: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...] = ()
    scoring: ScoringRules = ScoringRules()


def assembled(loaded: Loaded, today: date) -> Assembly:
    """The Assembly of a configuration with the prices of a UTC day. Raises ConfigError with every mistake."""
    found = assemble(loaded.settings, loaded.environment, today)
    if isinstance(found, tuple):
        raise ConfigError([located(loaded.text, mistake) for mistake in found])
    return found


def assemble(settings: Settings, environment: Mapping[str, str], today: date) -> Assembly | tuple[ConfigProblem, ...]:
    """The Assembly, or the mistakes that prevent it. A provider without its key is simply off."""
    catalogue = load_catalogue()
    places: dict[str, BackendTarget] = {}
    off: list[ConfigProblem] = []
    warnings: list[ConfigProblem] = []
    mistakes: list[ConfigProblem] = []
    try:
        book = prices.book(settings.price_file)
    except ProviderError as error:
        mistakes.append(ConfigProblem("prices.file", 0, str(error)))
        book = prices.book()
    ladder = _ladder(settings, catalogue)
    for part in settings.backends:
        where = f"backends.{part.name}"
        entry = catalogue.get(part.provider)
        if entry is None:
            names = ", ".join(sorted(catalogue))
            mistakes.append(ConfigProblem(where, 0, f"provider {part.provider!r} is not known; use one of {names}"))
            continue
        variable = unset(part.api_key, environment)
        if variable:
            off.append(ConfigProblem(where, 0, f"is off: ${{{variable}}} is not set; export {variable}"))
            continue
        key = part.api_key or environment.get(entry.key_variable, "")
        if not key and entry.key_variable and not (part.local or entry.local):
            off.append(ConfigProblem(where, 0, f"is off: export {entry.key_variable}, or set api_key"))
            continue
        try:
            reach = target(entry, part.base_url, key or None)
            known = book.record(part.provider, part.model)
            offer = None if _local(part, entry) else _offer(part, known, today, settings.prices.stale_after_days)
        except (ProviderError, TariffError) as error:
            mistakes.append(ConfigProblem(where, 0, str(error)))
            continue
        if offer is None and not _local(part, entry):
            mistakes.append(ConfigProblem(where, 0, _NO_PRICE.format(part.model)))
            continue
        if offer is not None:
            warnings.extend(ConfigProblem(where, 0, text) for text in offer.price_status.warnings)
            if offer.price_status.off:
                off.append(ConfigProblem(where, 0, f"is off: {offer.price_status.off}"))
                continue
        backend = _backend(part, entry, known, None if offer is None else offer.tariff, settings)
        backend = replace(backend, rungs=rungs_of(backend.name, ladder))
        places[part.name] = BackendTarget(backend, entry, reach, part.base_url or entry.base_url)
    nearby = {name: place.backend for name, place in places.items() if place.backend.local}
    scoring = scoring_rules(settings.confidence, fingerprinted(settings.backends, nearby), mistakes, warnings)
    mistakes.extend(_costless(settings, places))
    warnings.extend(_paceless(settings))
    if mistakes:
        return tuple(mistakes)
    policy = _policy(settings, places, scoring)
    return Assembly(policy, places, _rates(settings.backends), tuple(off), tuple(warnings), scoring)


def _policy(settings: Settings, places: Mapping[str, BackendTarget], scoring: ScoringRules) -> Policy:
    chains = {alias: tuple(n for n in chain if n in places) for alias, chain in settings.chains().items()}
    return Policy(
        _version(settings),
        {name: place.backend for name, place in places.items()},
        {alias: chain for alias, chain in chains.items() if chain},
        Slo(settings.slo.ttft_ms / 1000, settings.slo.tpot_ms / 1000),
        ConfidenceRule(
            threshold(settings.confidence, scoring.calibration),
            tuple(n for n in settings.confidence.escalate_to if n in places),
        ),
    )


def _backend(
    part: BackendPart, entry: CatalogueEntry, known: ModelRecord | None, tariff: Tariff | None, settings: Settings
) -> Backend:
    most = part.max_output_tokens
    if known is not None and known.max_output_tokens is not None:
        # Of a paid model the reservation must cover what it can say, unless the configuration knows better.
        paid = tariff is not None and "max_output_tokens" not in part.model_fields_set
        most = known.max_output_tokens if paid else min(most, known.max_output_tokens)
    return Backend(
        part.name,
        part.provider,
        part.model,
        _local(part, entry),
        entry.endpoints,
        _capabilities(entry, known),
        tariff,
        part.context_tokens or (known.context_tokens if known is not None else None),
        most,
        entry.collects_data,
        entry.billing_on_cancel == "stops",
        math.ceil(settings.limits.answer_s),
    )


def _capabilities(entry: CatalogueEntry, known: ModelRecord | None) -> frozenset[Capability]:
    """Return what the provider's API can do, without vision where the price list says that the model sees no images."""
    return entry.capabilities - {"vision"} if known is not None and not known.vision else entry.capabilities


def _local(part: BackendPart, entry: CatalogueEntry) -> bool:
    return entry.local if part.local is None else part.local


def _own_price(price: PricePart) -> ModelRecord:
    """What the configuration says of a model, in the shape of a price list's record."""
    tariff = price.tariff()
    begin = price.valid_from or date.min
    return ModelRecord(
        ((begin, tariff),), None, None, price.retired_on, True, checked_on=price.checked_on or price.valid_from
    )


def _offer(part: BackendPart, known: ModelRecord | None, today: date, stale_after_days: int) -> _Offer | None:
    """The price of a paid backend and whether to rely on it; None where no price is known. `price:` goes first."""
    if part.price is not None:
        own = _own_price(part.price)
        found = price_status(own, today, stale_after_days)
        if known is not None and known.retired_on is not None and part.price.retired_on is None:
            told = (
                f"the price list says the provider withdraws the model on {known.retired_on}; its own `price:` counts"
            )
            found = replace(found, warnings=(*found.warnings, told))
        return _Offer(own.tariff(today), found)
    return None if known is None else _Offer(known.tariff(today), price_status(known, today, stale_after_days))


def _ladder(settings: Settings, catalogue: Mapping[str, CatalogueEntry]) -> Ladder:
    """Every rung of every budget; the word `cloud` stands for all backends that are not local."""
    clouds = frozenset(
        part.name
        for part in settings.backends
        if (entry := catalogue.get(part.provider)) is not None and not _local(part, entry)
    )
    return tuple(
        Rung(cap.scope, cap.period, float(rung.at), clouds if rung.drop == ALL_CLOUDS else frozenset(rung.drop))
        for cap in settings.budgets
        for rung in cap.degrade
    )


def _paceless(settings: Settings) -> list[ConfigProblem]:
    """Paced budgets where nothing is escalated: there is nothing to pace."""
    if settings.confidence.escalate_to:
        return []
    problem = "paces escalations, but confidence.escalate_to names no backend; add one, or take out pacing"
    return [ConfigProblem(f"budgets.{i}.pacing", 0, problem) for i, cap in enumerate(settings.budgets) if cap.pacing]


def _costless(settings: Settings, places: Mapping[str, BackendTarget]) -> list[ConfigProblem]:
    """Rungs that leave out a local backend, which saves no money."""
    return [
        ConfigProblem(f"budgets.{i}.degrade.{j}", 0, f"{name} is local and costs no request; take it out of `drop`")
        for i, cap in enumerate(settings.budgets)
        for j, rung in enumerate(cap.degrade)
        if rung.drop != ALL_CLOUDS
        for name in rung.drop
        if name in places and places[name].backend.local
    ]


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


def channels(assembly: Assembly, kept: Mapping[str, tuple[Target, Pool]]) -> dict[str, BackendRoute]:
    """A channel per backend; pools of unchanged targets are kept with their connections."""
    tls: ssl.SSLContext | None = None
    found: dict[str, BackendRoute] = {}
    for name, place in assembly.places.items():
        known = kept.get(name)
        if known is not None and known[0] == place.target:
            pool = known[1]
        else:
            if place.target.scheme == "https" and tls is None:
                tls = ssl.create_default_context()
            limits = PoolLimits() if place.backend.local else PoolLimits(keepalive_s=CLOUD_KEEPALIVE_S)
            limits = replace(limits, resend=place.backend.tariff is None)
            pool = Pool(place.target, limits, tls)
        found[name] = BackendRoute(place.backend, provider_for(place.entry), pool, naming_lines(place.backend))
    return found


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
