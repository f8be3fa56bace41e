"""Derives from Settings what GPUs and requests cost: rental terms, work per token, the terms of reports, pacing."""

from __future__ import annotations

from spillway_router.config.assemble import Assembly
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.settings import Settings
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import NANO, Tariff
from spillway_router.ledger.pacer import PacingRules
from spillway_router.ledger.rentals.keeper import RentalTerms
from spillway_router.ledger.reports.build import ReportTerms
from spillway_router.ledger.reports.days import read_zone


def rental_terms(settings: Settings, assembly: Assembly) -> RentalTerms | None:
    """Return what this router bills for its GPUs; None if it has neither a local engine nor a price."""
    gpu = settings.gpu
    if not gpu.price_per_hour and not any(backend.local for backend in assembly.backends):
        return None
    return RentalTerms(gpu.name or "", gpu.count, int(gpu.price_per_hour * NANO), gpu.kind)


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
    alternatives: dict[str, Tariff] = {
        f"{backend.name} ({backend.model})": backend.tariff
        for backend in assembly.backends
        if backend.tariff is not None and _could_answer(backend.tariff)
    }
    caps_nano = [part.line().limit_nano for part in settings.budgets if (part.scope, part.period) == ("all", "month")]
    gpu = GpuRental(settings.gpu.price_per_hour, settings.gpu.count)
    return ReportTerms(
        gpu=gpu,
        coefficients=work_coefficients(settings),
        alternatives=alternatives,
        month_budget_nano=caps_nano[0] if caps_nano else None,
        zone=read_zone(settings.report.timezone),
        currency=None if settings.report.currency is None else settings.report.currency.currency(),
    )


def _could_answer(tariff: Tariff) -> bool:
    """Return whether the answers of other backends can be priced at a tariff.

    A price per second needs a time that nobody measured there, and a model that bills its input and not its output is
    one for embeddings. Both would look far cheaper than anything that answers.
    """
    bills_input_only = tariff.input_per_million > 0 and not tariff.output_per_million and not tariff.per_request
    return not tariff.per_second and not bills_input_only


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
