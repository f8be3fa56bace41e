"""Metrics of money: the health of the ledger's writer, and the budgets with what pacing asks of escalations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.pacer import Pacer
from spillway_router.ledger.rentals.fixed_cost import FixedToday
from spillway_router.ledger.writer import LedgerWriter


class LedgerMetrics(Collector):
    """Whether rows reach the disk, and how many wait or were lost."""

    def __init__(self, writer: LedgerWriter, accounts: Accounts) -> None:
        self._writer, self._accounts = writer, accounts

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        health = self._writer.health
        values = {
            "spillway_ledger_up": ("1 if rows reach the disk", not health.degraded),
            "spillway_ledger_queued_rows": ("Rows that wait to be written", health.queued_rows),
            "spillway_ledger_waiting_rows": ("Rows in the journal", len(self._writer.journal)),
            "spillway_ledger_owed_rows": ("Rows in the journal that end a hold", self._accounts.owed_rows),
            "spillway_ledger_lost_rows": ("Rows that were lost", self._accounts.lost_rows),
        }
        for name, (text, value) in values.items():
            yield GaugeMetricFamily(name, text, value=float(value))


class FixedCostMetrics(Collector):
    """The fixed cost of the running UTC day so far, in US dollars, as of the last minute.

    That of the GPUs is left out while the price of one is unknown, since 0 would be taken for it.
    """

    def __init__(self, today: Callable[[], FixedToday | None]) -> None:
        self._today = today

    def collect(self) -> Iterable[Metric]:
        """Yield the families; none before the first minute is billed."""
        today = self._today()
        if today is None:
            return
        family = GaugeMetricFamily(
            "spillway_fixed_cost_today_usd",
            "Fixed cost of this UTC day so far in US dollars: billed is used plus idle; other is no GPU",
            labels=["part"],
        )
        gpus = {"billed": today.billed_nano, "used": today.used_nano, "idle": today.idle_nano}
        parts = {**({} if today.unpriced_us else gpus), "other": today.other_nano}
        for part, nano in parts.items():
            family.add_metric([part], nano / NANO)
        yield family
        yield GaugeMetricFamily(
            "spillway_unpriced_gpu_hours_today",
            "GPU-hours of this UTC day so far whose price nobody gave",
            value=today.unpriced_us / 3.6e9,
        )


class BudgetMetrics(Collector):
    """Every budget in its present period, in US dollars, and the gain per dollar that pacing asks of escalations."""

    def __init__(self, accounts: Accounts, pacer: Pacer) -> None:
        self._accounts, self._pacer = accounts, pacer

    def collect(self) -> Iterable[Metric]:
        """Yield the families; one without a budget is left out."""
        labels = ["scope", "period"]
        limit = GaugeMetricFamily("spillway_budget_limit_usd", "Cap of the period in US dollars", labels=labels)
        spent = GaugeMetricFamily("spillway_budget_spent_usd", "Spent in the period in US dollars", labels=labels)
        held = GaugeMetricFamily("spillway_budget_held_usd", "Held for calls in progress in US dollars", labels=labels)
        price = GaugeMetricFamily(
            "spillway_pacing_gain_per_usd", "Gain that an escalation must bring per US dollar", labels=labels
        )
        for line, balance in self._accounts.balances():
            names = [line.scope, line.period]
            limit.add_metric(names, line.limit_nano / NANO)
            spent.add_metric(names, balance.spent_nano / NANO)
            held.add_metric(names, balance.reserved_nano / NANO)
            used_share = balance.taken_nano / line.limit_nano if line.limit_nano else 1.0
            price_of_gain = self._pacer.price_of(line.key, used_share)
            if price_of_gain is not None:
                price.add_metric(names, price_of_gain)
        yield from (family for family in (limit, spent, held, price) if family.samples)
