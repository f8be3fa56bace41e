"""The row that ends an attempt says what its charge was computed from, and how sure it is."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from tests.core.scenes import LOCAL, facts
from tests.ledger.helpers import DEAR_BACKEND, DEAR_TARIFF, SEARCHES

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.tariff import Tariff, Usage
from spillway_router.core.routing.model import Backend
from spillway_router.ledger.entries import Entry, counts_of
from spillway_router.ledger.holds import AttemptEntries, AttemptReason, AttemptResult, Hold

BOUND = 10_000_000
ENTRIES = AttemptEntries("me", WorkCoefficients(), lambda: 1_790_000_000.0)


def row(result: AttemptResult, backend: Backend = DEAR_BACKEND, **of_request: Any) -> Entry:
    """Return the row of an attempt that was held at BOUND."""
    hold = Hold(
        facts=facts(**of_request),
        backend=backend,
        reason=AttemptReason("overflow", ("queue",)),
        attempt_no=1,
        held_ms=0,
        bound_nano=BOUND,
        stored=True,
    )
    return ENTRIES.closing(hold, backend, result)


def test_tokens_for_caches_modes_and_tools_are_in_the_row() -> None:
    usage = Usage(
        prompt_tokens=100,
        completion_tokens=10,
        cached_tokens=20,
        cache_write_tokens=50,
        cache_write_long_tokens=30,
        service="flex",
        calls=(("web_search", 3),),
    )
    billed = row(AttemptResult("ok", usage), items=SEARCHES)
    assert (billed.cache_write_tokens, billed.cache_write_long_tokens, billed.service) == (50, 30, "flex")
    assert counts_of(billed.calls) == (("web_search_20250305", 3),)
    assert billed.amount_nano == (20 + 30) * 500 + 50 * 500 + 10 * 5_000 + 3 * 10_000_000
    assert (billed.status, billed.estimated_nano) == ("unknown", billed.amount_nano)  # it is above the bound


def test_an_ordinary_row_uses_none_of_the_later_columns() -> None:
    paid = row(AttemptResult("ok", Usage(100, 10, cached_tokens=20)))
    assert paid[25:] == ("", 0, 0, "", 0, "", "", 0, 0, 0, "", 0)
    assert paid.amount_nano == 80 * 1_000 + 20 * 100 + 10 * 10_000
    assert row(AttemptResult("ok", Usage(100, 10)), LOCAL)[25:] == paid[25:]
    assert row(AttemptResult("error", None, billed=False))[25:] == paid[25:]


def test_seconds_at_a_price_are_in_the_row_as_they_were_billed() -> None:
    per_second = replace(DEAR_BACKEND, tariff=Tariff(Decimal(0), Decimal(0), per_second=Decimal("0.001")), longest_s=3)
    billed = row(AttemptResult("ok", Usage(1, 1), seconds=1.2341), per_second)
    assert (billed.billed_us, billed.amount_nano) == (1_235_000, 1_235_000)
    assert row(AttemptResult("ok", Usage(1, 1), seconds=99.0), per_second).billed_us == 3_000_000


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (AttemptResult("ok", None), ("unknown", BOUND, BOUND, BOUND)),
        (AttemptResult("ok", Usage(0, 10, service="priority")), ("unknown", BOUND, BOUND, BOUND)),
        (AttemptResult("ok", Usage(0, 10**5)), ("unknown", 10**9, 10**9, 10**9)),
        (AttemptResult("aborted", Usage(0, 10), estimated=True), ("aborted", 100_000, 100_000, BOUND)),
        (AttemptResult("aborted", Usage(0, 1000), estimated=True), ("aborted", BOUND, BOUND, BOUND)),
        (AttemptResult("aborted", Usage(0, 10)), ("aborted", 100_000, 0, 0)),
        (AttemptResult("ok", Usage(0, 10, told_nano=7)), ("ok", 7, 0, 0)),
        (AttemptResult("ok", Usage(0, 10, told_nano=BOUND + 1)), ("unknown", BOUND + 1, BOUND + 1, BOUND + 1)),
        (AttemptResult("error", None, billed=False), ("error", 0, 0, 0)),
    ],
)
def test_a_row_says_what_is_not_known_for_sure(result: AttemptResult, expected: tuple[str, int, int, int]) -> None:
    billed = row(result)
    assert (billed.status, billed.amount_nano, billed.estimated_nano, billed.at_most_nano) == expected


def test_a_charge_that_the_provider_named_has_no_price_of_ours() -> None:
    assert row(AttemptResult("ok", Usage(5, 10, told_nano=7))).tariff_ref == "usage.cost"
    assert row(AttemptResult("ok", Usage(5, 10))).tariff_ref == DEAR_TARIFF.ref


@pytest.mark.parametrize("context", [None, 8_192])
@pytest.mark.parametrize(
    "usage",
    [
        Usage(9_000_000, 1),
        Usage(1, 9_000_000),
        Usage(10, 10, told_nano=900_000 * 10**9),
        Usage(9_000_000, 9_000_000, calls=(("web_search", 2),)),
        Usage(10, 10, calls=(("web_search", 10**6),)),
    ],
)
def test_what_no_call_can_cost_is_charged_as_the_hold(usage: Usage, context: int | None) -> None:
    backend = replace(DEAR_BACKEND, context_tokens=context)
    nonsense = row(AttemptResult("ok", usage), backend, items=SEARCHES)
    assert (nonsense.status, nonsense.amount_nano, nonsense.at_most_nano) == ("unknown", BOUND, BOUND)
    assert (nonsense.prompt_tokens, nonsense.completion_tokens, nonsense.model) == (0, 0, backend.model)


def test_what_is_above_the_hold_but_possible_is_charged_as_it_was_told() -> None:
    dear = row(AttemptResult("ok", Usage(100_000, 1_000)), replace(DEAR_BACKEND, context_tokens=131_072))
    assert (dear.status, dear.amount_nano) == ("unknown", 100_000 * 1_000 + 1_000 * 10_000)
    named = row(AttemptResult("ok", Usage(10, 10, told_nano=2 * BOUND)))
    assert (named.status, named.amount_nano, named.prompt_tokens) == ("unknown", 2 * BOUND, 10)


def test_uncertain_usage_costs_the_hold_and_keeps_its_counts() -> None:
    uncertain = row(AttemptResult("ok", Usage(100, 0, certain=False)))
    assert (uncertain.status, uncertain.amount_nano, uncertain.prompt_tokens) == ("unknown", BOUND, 100)
    by_time = Tariff(Decimal(0), Decimal(0), per_request=Decimal("0.001"))
    paid = row(AttemptResult("ok", Usage(100, 0, certain=False)), replace(DEAR_BACKEND, tariff=by_time))
    assert (paid.status, paid.amount_nano) == ("ok", 1_000_000)


def test_tokens_with_prices_of_their_own_are_in_the_row() -> None:
    usage = Usage(100, 50, media=(("audio_input", 90), ("audio_output", 40)))
    spoken = replace(DEAR_TARIFF, media=(("audio_input", Decimal(40)), ("audio_output", Decimal(80))))
    billed = row(AttemptResult("ok", usage), replace(DEAR_BACKEND, tariff=spoken))
    assert counts_of(billed.media_tokens) == (("audio_input", 90), ("audio_output", 40))
    assert (billed.status, billed.amount_nano) == ("ok", 10 * 1_000 + 90 * 40_000 + 10 * 10_000 + 40 * 80_000)
    unpriced = row(AttemptResult("ok", usage))
    assert (unpriced.status, unpriced.amount_nano) == ("unknown", BOUND)
