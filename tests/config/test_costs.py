"""What a report compares with: only backends whose price says what the answers of others would have cost there."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config.assemble import assembly_of
from spillway_router.config.costs import report_terms
from spillway_router.config.load import Loaded, parse

TEXT = """
backends:
  - {{name: cloud, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m, price: {{{price}}}}}
"""


@pytest.mark.parametrize(
    ("price", "alternatives"),
    [
        ('input_per_million: "0.15", output_per_million: "0.60"', ["cloud (m)"]),
        ('input_per_million: "0", output_per_million: "0"', ["cloud (m)"]),
        ('input_per_million: "0", output_per_million: "0", per_request: "0.01"', ["cloud (m)"]),
        ('input_per_million: "0.02", output_per_million: "0"', []),
        ('input_per_million: "0", output_per_million: "0", per_second: "0.001"', []),
    ],
    ids=["tokens", "free", "per request", "embeddings", "per second"],
)
def test_a_report_compares_with_backends_that_could_have_answered(price: str, alternatives: list[str]) -> None:
    settings = parse(TEXT.format(price=price), {})
    terms = report_terms(settings, assembly_of(Loaded(settings, None, "", {}), date(2026, 11, 29)))
    assert list(terms.alternatives) == alternatives
