"""Derives from Settings what GPUs and requests cost: rental terms, work per token, the terms of reports, pacing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from spillway_router.config.assemble import Assembly
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import Settings
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.pacer import PacingRules
from spillway_router.ledger.rentals.desk import RentalDefaults
from spillway_router.ledger.rentals.keeper import FixedTerms, RentalTerms
from spillway_router.ledger.rentals.other_costs import OtherCostTerms
from spillway_router.ledger.reports.days import read_zone
from spillway_router.ledger.reports.terms import ReportTerms


def gpu_terms(settings: Settings) -> RentalTerms:
    """Return the configured terms of the GPUs; the price is 0 where it is unknown."""
    gpu = settings.gpu
    month = gpu.price_per_month
    return RentalTerms(
        gpu=gpu.name or "",
        count=gpu.count,
        price_nano_per_hour=int(gpu.hourly * NANO),
        kind=gpu.kind,
        price_nano_per_month=None if month is None else int(month * NANO),
    )


def rental_defaults(settings: Settings) -> RentalDefaults:
    """Return what a rental is whose terms are left out."""
    gpu = settings.gpu
    return RentalDefaults(gpu_terms(settings), gpu.price_known, gpu.hours_per_month)


def fixed_terms(settings: Settings, assembly: Assembly, host: str) -> FixedTerms:
    """Return what this router bills: its GPUs, unless it has neither a local engine nor a price, and other fixed costs.

    `host` is the name of this machine.
    """
    engines = [target.base_url for target in assembly.targets.values() if target.backend.local]
    rental = None
    if settings.gpu.hourly or engines:
        rental = replace(gpu_terms(settings), machine=settings.gpu.machine or machine_of(engines, host))
    other = tuple(
        OtherCostTerms(
            name=part.name,
            price_nano_per_month=int(part.price_per_month * NANO),
            since_ms=None if part.since is None else start_of(part.since),
        )
        for part in settings.fixed_costs
    )
    return FixedTerms(rental, other, is_free=settings.gpu.is_free)


def unpriced_gpu(settings: Settings, assembly: Assembly) -> tuple[ConfigProblem, ...]:
    """Return the warning that the price of the GPUs behind local engines is unknown, if it is."""
    if settings.gpu.price_known or not any(target.backend.local for target in assembly.targets.values()):
        return ()
    problem = (
        "the price of the GPU is unknown, so reports have its hours at 0 and begin with a warning; set "
        'gpu: {price_per_hour: "1.39"} or {price_per_month: "250"}, or "0" for a machine of your own'
    )
    return (ConfigProblem("gpu", 0, problem),)


def machine_of(engines: Iterable[str], host: str) -> str:
    """Return which GPUs the engines with these URLs run on, as far as addresses tell: routers before one engine share
    its GPUs, and an engine on a loopback address or a socket belongs to this host."""
    places = set()
    for engine in engines:
        url = urlsplit(engine)
        name = url.hostname or ""
        local = not name or name in ("localhost", "::1") or name.startswith("127.")
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        places.add(f"{host if local else name}:{port or url.path}")
    return ",".join(sorted(places or {host}))[:200]


def work_coefficients(settings: Settings) -> WorkCoefficients:
    """Return the local engine's work per token, in picoseconds: the configured values, else those of the GPU's data
    sheet, else the defaults."""
    base = data_sheet_coefficients(settings.gpu.name) if settings.gpu.name else WorkCoefficients()
    work = settings.gpu.work
    return WorkCoefficients(
        prefill_ps=base.prefill_ps if work.prefill_us is None else round(work.prefill_us * 10**6),
        decode_ps=base.decode_ps if work.decode_us is None else round(work.decode_us * 10**6),
        kv_ps=base.kv_ps if work.kv_us is None else round(work.kv_us * 10**6),
    )


def report_terms(settings: Settings, assembly: Assembly) -> ReportTerms:
    """Return what reports compare with: the priced backends, the GPU and the month's budget of the configuration."""
    alternatives = {
        f"{backend.name} ({backend.model})": assembly.offers[backend.name]
        for backend in assembly.backends
        if backend.name in assembly.offers
    }
    caps_nano = [part.line().limit_nano for part in settings.budgets if (part.scope, part.period) == ("all", "month")]
    gpu = GpuRental(settings.gpu.hourly, settings.gpu.count)
    return ReportTerms(
        gpu=gpu,
        coefficients=work_coefficients(settings),
        alternatives=alternatives,
        month_budget_nano=caps_nano[0] if caps_nano else None,
        zone=read_zone(settings.report.timezone),
        currency=None if settings.report.currency is None else settings.report.currency.currency(),
        price_known=settings.gpu.price_known,
    )


def budget_lines(settings: Settings) -> tuple[BudgetLine, ...]:
    """Return every budget, in nano-dollars."""
    return tuple(part.line() for part in settings.budgets)


def pacing_rules(settings: Settings, assembly: Assembly) -> PacingRules:
    """Return the paced budgets, the priced backends that answers are escalated to, and the threshold below which."""
    confidence = assembly.policy.confidence
    tiers = (assembly.policy.backends[name] for name in confidence.escalate_to)
    return PacingRules(
        lines=tuple(part.line() for part in settings.budgets if part.pacing),
        tiers=tuple(tier for tier in tiers if tier.tariff is not None),
        threshold=confidence.threshold,
    )
