"""Amounts for people: in US dollars, or in the reader's currency at a fixed rate.

The ledger and every output for programs are in nano-dollars. A currency only changes what people see: each amount is
converted exactly and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from spillway_router.core.money.tariff import NANO

_MOST_PLACES = 9


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency by its ISO code, what one US dollar is in it (decimal text), and the day of that rate (ISO)."""

    code: str
    per_usd: str
    as_of: str


@dataclass(frozen=True, slots=True)
class Amounts:
    """Writes nano-dollars for people, in a currency or in US dollars."""

    currency: Currency | None = None

    def money(self, nano: int) -> str:
        """Return an amount, rounded half up: `$1,031.03` from one dollar on, `$0.0414` below; `EUR 948.55`.

        An amount of which four decimals would show less than two digits gets as many as it needs for two: `$0.000031`.
        """
        return self._written(self._exact(nano))

    def _exact(self, nano: int) -> Fraction:
        return Fraction(nano) if self.currency is None else nano * Fraction(self.currency.per_usd)

    def _written(self, exact: Fraction) -> str:
        places = 2
        if _rounded(exact, 4) < NANO:
            places = 4
            while places < _MOST_PLACES and exact and _rounded(exact, places) < 10 * 10 ** (_MOST_PLACES - places):
                places += 1
        shown = _rounded(exact, places)
        whole, fraction = divmod(shown, NANO)
        sign = "-" if exact < 0 and shown else ""
        unit = "$" if self.currency is None else f"{self.currency.code} "
        return f"{sign}{unit}{whole:,}.{f'{fraction:09d}'[:places]}"

    def about(self, nano: int) -> str:
        """Return a guess with two digits: `about $460`, `about $0.0012`."""
        exact = self._exact(nano)
        scale: int = 10 ** max(0, len(str(int(abs(exact)))) - 2)
        rounded = int((2 * abs(exact) + scale) // (2 * scale)) * scale * (-1 if nano < 0 else 1)
        shown = self._written(Fraction(rounded))
        return f"about {shown.removesuffix('.00') if abs(rounded) >= 10 * NANO else shown}"

    def or_dash(self, nano: int | None) -> str:
        """Return an amount for a table, or a dash for None."""
        return "-" if nano is None else self.money(nano)


IN_USD = Amounts()
"""Amounts in US dollars, as messages have them."""


def _rounded(nano: Fraction, places: int) -> int:
    """Return the absolute amount rounded half up to so many decimals, in billionths."""
    unit: int = 10 ** (_MOST_PLACES - places)
    return int((2 * abs(nano) + unit) // (2 * unit)) * unit
