"""What a report compares with, and the fixed costs of a configuration."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config.assemble import Assembly, assemble, assembly_of
from spillway_router.config.costs import fixed_terms, report_terms, unpriced_gpu
from spillway_router.config.load import ConfigError, Loaded, parse
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.rentals.keeper import FixedTerms
from spillway_router.ledger.rentals.other_costs import OtherCostTerms

TEXT = """
backends:
  - {{name: cloud, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m, price: {{{price}}}}}
"""


@pytest.mark.parametrize(
    ("price", "kind", "comparable"),
    [
        ('input_per_million: "0.15", output_per_million: "0.60"', "text", True),
        ('input_per_million: "0", output_per_million: "0"', "text", True),
        ('input_per_million: "0", output_per_million: "0", per_request: "0.01"', "text", True),
        ('input_per_million: "0.02", output_per_million: "0"', "embedding", True),
        ('input_per_million: "0", output_per_million: "0", per_second: "0.001"', "text", False),
    ],
    ids=["tokens", "free", "per request", "embeddings", "per second"],
)
def test_a_report_knows_what_a_backend_could_have_answered(price: str, kind: str, comparable: bool) -> None:
    settings = parse(TEXT.format(price=price), {})
    terms = report_terms(settings, assembly_of(Loaded(settings, None, "", {}), date(2026, 11, 29)))
    assert list(terms.alternatives) == ["cloud (m)"]
    offer = terms.alternatives["cloud (m)"]
    assert (offer.kind, offer.comparable) == (kind, comparable)


def fixed_of(text: str, host: str = "box1") -> FixedTerms:
    settings = parse(text, {})
    outcome = assemble(settings, {}, date(2026, 11, 29))
    assert isinstance(outcome, Assembly), outcome
    return fixed_terms(settings, outcome, host)


ENGINE = 'backends: [{{name: local, provider: vllm, local: true, base_url: "{url}", model: m}}]\n'


@pytest.mark.parametrize(
    ("url", "machine"),
    [
        ("http://127.0.0.1:8001/v1", "box1:8001"),
        ("http://localhost:8002/v1", "box1:8002"),
        ("unix:///run/vllm.sock", "box1:/run/vllm.sock"),
        ("http://vllm.example:8000/v1", "vllm.example:8000"),
        ("https://pod1-8080.proxy.example/v1", "pod1-8080.proxy.example:443"),
    ],
)
def test_a_machine_is_the_address_of_its_engine(url: str, machine: str) -> None:
    rental = fixed_of(ENGINE.format(url=url)).rental
    assert rental is not None
    assert rental.machine == machine


def test_a_machine_can_be_named_and_a_router_without_engine_and_price_bills_nothing() -> None:
    rental = fixed_of(
        'gpu: {machine: rack7, price_per_hour: "2", count: 2}\n' + ENGINE.format(url="http://e:1/v1")
    ).rental
    assert rental is not None
    assert (rental.machine, rental.count, rental.price_nano_per_hour) == ("rack7", 2, 2 * 10**9)
    assert fixed_of("backends: [{name: g, provider: groq, model: openai/gpt-oss-20b, api_key: k}]\n").rental is None


def test_a_price_per_month_and_other_fixed_costs() -> None:
    text = """
gpu: {price_per_month: "250", hours_per_month: 730}
fixed_costs: [{name: database, price_per_month: "50", since: 2026-11-01}, {name: hosting, price_per_month: "0.10"}]
"""
    terms = fixed_of(text + ENGINE.format(url="http://127.0.0.1:1/v1"))
    assert terms.rental is not None
    assert (terms.rental.price_nano_per_month, terms.rental.price_nano_per_hour) == (250 * 10**9, 342_465_753)
    assert terms.other == (
        OtherCostTerms("database", 50 * 10**9, start_of(date(2026, 11, 1))),
        OtherCostTerms("hosting", 10**8, None),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('gpu: {price_per_hour: "1", price_per_month: "2"}', "not both"),
        ('fixed_costs: [{name: a, price_per_month: "1"}, {name: a, price_per_month: "2"}]', "occurs twice"),
        ('fixed_costs: [{name: a, price_per_month: "-1"}]', "price_per_month"),
    ],
)
def test_wrong_prices_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text, {})
    assert problem in str([str(each) for each in refused.value.problems])


def test_an_unknown_price_is_warned_of_and_0_is_a_price() -> None:
    def warnings(text: str) -> int:
        settings = parse(text + ENGINE.format(url="http://127.0.0.1:1/v1"), {})
        outcome = assemble(settings, {}, date(2026, 11, 29))
        assert isinstance(outcome, Assembly)
        return len(unpriced_gpu(settings, outcome))

    assert [warnings(text) for text in ("", 'gpu: {price_per_hour: "0"}\n', 'gpu: {price_per_month: "9"}\n')] == [
        1,
        0,
        0,
    ]
