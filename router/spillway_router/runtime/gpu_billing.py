"""The fixed side of a running router: GPU time onto the books, and reports of both sides."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any

from spillway_router.config.assemble import Assembly
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.load import Loaded
from spillway_router.config.settings import Settings
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import NANO, Tariff
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.keeper import RentalKeeper, RentalTerms
from spillway_router.ledger.reports.build import ReportTerms, build_report
from spillway_router.ledger.reports.days import ReportQuery, read_by, read_range
from spillway_router.ledger.reports.json_values import report_values
from spillway_router.ledger.reports.model import Report

log = logging.getLogger("spillway")

TICK_S = 60.0


class GpuBilling:
    """Bills GPU time while a router runs. `start` inside the event loop; `stop` when it ends."""

    def __init__(self, ledger: Ledger, loaded: Loaded, assembly: Assembly) -> None:
        self._ledger = ledger
        self._loaded, self._assembly = loaded, assembly
        self._keeper = RentalKeeper(ledger, rental_terms(loaded.settings, assembly), new_rental_id)
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    def start(self) -> None:
        """Begin to bill."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="gpu-time")

    async def stop(self) -> None:
        """Close this router's rental; its rows are written, or the next start writes them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._told(asyncio.to_thread(self._keeper.end, _now_ms()))

    async def reload(self, loaded: Loaded, assembly: Assembly) -> None:
        """Bill by another configuration from now on."""
        self._loaded, self._assembly = loaded, assembly
        terms = rental_terms(loaded.settings, assembly)
        await self._told(asyncio.to_thread(self._keeper.reprice, terms, _now_ms()))

    async def usage(self, asked: ReportQuery) -> Mapping[str, Any]:
        """The report that was asked for, as JSON values. Raises RangeError or LedgerError."""
        report = await asyncio.to_thread(report_for, self._ledger, self._loaded, self._assembly, asked)
        return report_values(report)

    async def _run(self) -> None:
        while True:
            work = self._keeper.tick if self._begun else self._keeper.begin
            done = await self._told(asyncio.to_thread(work, _now_ms()))
            if done and not self._begun:
                self._begun = True
                continue
            await asyncio.sleep(TICK_S)

    @staticmethod
    async def _told(work: Awaitable[None]) -> bool:
        """True if it was done; else the log says why and the next time does it."""
        try:
            await work
        except LedgerError as error:
            log.warning("GPU time not written yet, the next time will: %s", error)
            return False
        return True


def new_rental_id() -> str:
    """An unused id of a rental."""
    return f"rent_{secrets.token_hex(8)}"


def rental_terms(settings: Settings, assembly: Assembly) -> RentalTerms | None:
    """What this router bills for its GPUs; None where it has no engine of its own and no price."""
    gpu = settings.gpu
    if not gpu.price_per_hour and not any(place.backend.local for place in assembly.places.values()):
        return None
    return RentalTerms(gpu.name or "", gpu.count, int(gpu.price_per_hour * NANO), gpu.kind)


def coefficients(settings: Settings) -> WorkCoefficients:
    """Work per token of the local engine: as configured, else of the GPU's data sheet, else the default."""
    base = data_sheet_coefficients(settings.gpu.name) if settings.gpu.name else WorkCoefficients()
    work = settings.gpu.work
    return WorkCoefficients(
        prefill_ps=base.prefill_ps if work.prefill_us is None else round(work.prefill_us * 10**6),
        decode_ps=base.decode_ps if work.decode_us is None else round(work.decode_us * 10**6),
        kv_ps=base.kv_ps if work.kv_us is None else round(work.kv_us * 10**6),
    )


def terms_for(settings: Settings, assembly: Assembly) -> ReportTerms:
    """What reports compare with: the priced backends of the configuration, its GPU and its month's budget."""
    backends = (place.backend for place in assembly.places.values())
    alternatives: dict[str, Tariff] = {f"{b.name} ({b.model})": b.tariff for b in backends if b.tariff is not None}
    caps = [b.line().limit_nano for b in settings.budgets if (b.scope, b.period) == ("all", "month")]
    gpu = GpuRental(settings.gpu.price_per_hour, settings.gpu.count)
    return ReportTerms(gpu, coefficients(settings), alternatives, caps[0] if caps else None)


def report_for(ledger: Ledger, loaded: Loaded, assembly: Assembly, asked: ReportQuery) -> Report:
    """The report that was asked for. Raises RangeError for a day, month or grouping that can't be used."""
    wanted = read_range(asked, datetime.now(UTC).date())
    by = read_by(asked.by)
    return build_report(ledger, wanted, terms_for(loaded.settings, assembly), _now_ms(), by)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
