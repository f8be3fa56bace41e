"""What leaves by price at the gate, beside today's rule and a clairvoyant's choice, in dollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from loadtests.simulator.dollars import Bill, bill_by_price, bill_today, clairvoyant_bill
from loadtests.simulator.gated import TokenPrice
from loadtests.simulator.table import TraceLoad
from loadtests.simulator.trace import NAMES

from evidence.results import Measurement

IDS = ("overflow.dollars_x2", "overflow.regret_x2")
TODAY = "backlog-router"
"""Today's rule as a live router runs it; cheaper here than the reference rule of `overflow.conv_x2_cloud`."""
PUBLISHED = "backlog"
JUDGED = TraceLoad("conv", 2.0)
LOADS = tuple(TraceLoad(trace, speed) for trace in NAMES for speed in (1.0, 2.0, 4.0))
PRICES: Mapping[str, TokenPrice] = {
    "0.15 and 0.60": TokenPrice(150, 600),
    "0.18 and 0.18": TokenPrice(180, 180),
    "0.05 and 0.08": TokenPrice(50, 80),
    "0.30 and 2.50": TokenPrice(300, 2500),
    "3 and 15": TokenPrice(3000, 15_000),
}
"""Dollars per million tokens of the prompt and of the answer. The first one is judged."""


def leaving(say: Callable[[str], None], loads: Sequence[TraceLoad] = LOADS) -> dict[str, Measurement]:
    """Measure the cloud dollars of the rule as a multiple of today's rule, and of the clairvoyant's."""
    say(f"  by price and by today's rule on {len(loads)} loads")
    price = TokenPrice()
    by_price, today = bill_by_price(JUDGED, price), bill_today(TODAY, JUDGED, price)
    published, least = bill_today(PUBLISHED, JUDGED, price), clairvoyant_bill(JUDGED, price)
    details = {
        "price_usd_per_million": "0.15 prompt, 0.60 answer",
        "by_price": _rounded(by_price),
        "today_as_the_router_runs_it": _rounded(today),
        "today_as_in_overflow.conv_x2_cloud": _rounded(published),
        "ratio_to_the_latter": round(by_price.usd / published.usd, 4),
        "clairvoyant": {key: round(value, 4) for key, value in asdict(least).items()},
        "simulated": "no engine ran; step times of an A100 with an 8B model",
        "promise": "first token within 1 s, a cloud's after 0.5 s",
    }
    others = {
        f"{name} USD per million": round(bill_by_price(JUDGED, one).usd / bill_today(TODAY, JUDGED, one).usd, 4)
        for name, one in PRICES.items()
    }
    bound = {
        "bound": "greedy on the matroid of work that fits between arrival and longest end, dearest per second first",
        "it_knows": "all arrivals and lengths of answers; it divides requests at will",
        "its_speed": "what the engine reaches with these requests when it is never short of work",
        "regret_to_the_strict_bound": round(by_price.usd / least.strict_usd, 4),
        "strict_bound": "the same with every token at the time of the engine's best batch, which no mixture reaches",
    }
    n = round(by_price.cloud_percent * 19_366 / 100)
    return {
        IDS[0]: Measurement(
            round(by_price.usd / today.usd, 4), n, {**details, "other_prices": others, "loads": _loads(loads, price)}
        ),
        IDS[1]: Measurement(round(by_price.usd / least.usd, 4), n, {**details, **bound}),
    }


def _loads(loads: Sequence[TraceLoad], price: TokenPrice) -> dict[str, dict[str, object]]:
    return {
        str(cell): {
            "by_price": _rounded(bill_by_price(cell, price)),
            "today": _rounded(bill_today(TODAY, cell, price)),
            "clairvoyant": {key: round(value, 4) for key, value in asdict(clairvoyant_bill(cell, price)).items()},
        }
        for cell in loads
    }


def _rounded(bill: Bill) -> dict[str, float]:
    return {key: round(value, 4) for key, value in asdict(bill).items()}
