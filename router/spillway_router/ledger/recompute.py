"""Compute charges again from the ledger alone: the tokens, the mode, the seconds and the calls in a row, and the price
that it names, as it is kept beside the rows (tables/tariffs.py).

What can't be computed again is counted apart: charges that the provider itself named, charges that are not known for
sure, adjustments, and rows of a version that kept no prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from spillway_router.core.money.tariff import DIGEST_SIGN, Tariff, TariffError, Usage, digest_of, price, tariff_of_text
from spillway_router.ledger.entries import BASE, COLUMNS, Entry, Row, counts_of, entry_of
from spillway_router.ledger.holds import TOLD_REF

_KIND, _STATUS, _LOCAL = COLUMNS.index("kind"), COLUMNS.index("status"), COLUMNS.index("local")
_PROMPT, _REASONING = COLUMNS.index("prompt_tokens"), COLUMNS.index("reasoning_tokens")
_AMOUNT, _REF = COLUMNS.index("amount_nano"), COLUMNS.index("tariff_ref")
_AT_MOST = COLUMNS.index("at_most_nano")


@dataclass(slots=True)
class ChargeCounts:
    """How many charges were computed again, and how many can't be: those that the provider `named`, those that are
    `unsure`, adjustments, and those whose price was `not_kept`, as their rows are older than the table of prices."""

    computed: int = 0
    named: int = 0
    unsure: int = 0
    adjusted: int = 0
    not_kept: int = 0


class KeptTariffs:
    """The prices that rows name, read when one is first asked for. `texts` returns the kept ones by their names; a
    router may keep more of them meanwhile."""

    def __init__(self, texts: Callable[[], Mapping[str, str]]) -> None:
        self._texts = texts
        self._tariffs: dict[str, Tariff | None] = {}

    def get(self, ref: str) -> Tariff | None:
        """Return the price of this name; None if it isn't kept, or not unchanged."""
        if ref not in self._tariffs:
            text = self._texts().get(ref)
            is_right = text is not None and digest_of(text) == ref.rpartition(DIGEST_SIGN)[2]
            try:
                self._tariffs[ref] = tariff_of_text(text) if is_right and text is not None else None
            except TariffError:
                self._tariffs[ref] = None
        return self._tariffs[ref]


def can_be_computed(entry: Entry) -> bool:
    """Return whether the row is a charge that follows from its usage and a kept price."""
    if entry.kind != "charged" or entry.status == "unknown" or entry.at_most_nano:
        return False
    return DIGEST_SIGN in entry.tariff_ref


class ChargeChecker:
    """Checks charges row by row and counts them. `texts` returns the kept prices by their names."""

    def __init__(self, texts: Callable[[], Mapping[str, str]]) -> None:
        self.counts = ChargeCounts()
        self._tariffs = KeptTariffs(texts)

    def flaw(self, row: Row) -> str | None:
        """Return what is wrong with the charge of a row; None if nothing is, or if it can't be computed again."""
        ref = row[_REF]
        if row[_KIND] != "charged":
            self.counts.adjusted += row[_KIND] == "adjusted"
            return None
        if not ref:
            return None
        if ref == TOLD_REF:
            self.counts.named += 1
        elif row[_STATUS] == "unknown" or (len(row) > BASE and row[_AT_MOST]):
            self.counts.unsure += 1
        elif DIGEST_SIGN not in ref:
            self.counts.not_kept += 1
        else:
            return self._compare(row, ref)
        return None

    def _compare(self, row: Row, ref: str) -> str | None:
        tariff = self._tariffs.get(ref)
        if tariff is None:
            return f"names the price {ref}, which the ledger doesn't keep unchanged"
        self.counts.computed += 1
        if not row[_AMOUNT] and row[_STATUS] == "error" and row[_LOCAL]:
            return None  # a failed attempt of an engine of one's own, which nobody bills
        try:
            nano = _charge_nano(row, tariff)
        except (ValueError, TypeError) as error:
            return f"can't be computed again: {error}"
        return None if nano == row[_AMOUNT] else f"is {row[_AMOUNT]} nano-USD, but its usage costs {nano} at {ref}"


def _charge_nano(row: Row, tariff: Tariff) -> int:
    """Return what the usage in a row costs, in nano-dollars. Raises ValueError or TypeError for a damaged row."""
    if len(row) == BASE:
        return price(Usage(*row[_PROMPT : _REASONING + 1]), tariff)
    entry = entry_of(row)
    billed_us = entry.billed_us
    return price(usage_of(entry), tariff, Decimal(billed_us).scaleb(-6) if billed_us else 0)


def usage_of(entry: Entry) -> Usage:
    """Return the usage in a row. Raises ValueError for a damaged row."""
    if not (entry.cache_write_tokens or entry.service or entry.calls or entry.media_tokens):
        return Usage(entry.prompt_tokens, entry.completion_tokens, entry.cached_tokens, entry.reasoning_tokens)
    return Usage(
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        cached_tokens=entry.cached_tokens,
        reasoning_tokens=entry.reasoning_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        cache_write_long_tokens=entry.cache_write_long_tokens,
        service=entry.service,
        calls=counts_of(entry.calls),
        media=counts_of(entry.media_tokens),
    )
