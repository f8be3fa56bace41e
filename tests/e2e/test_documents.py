"""Documents with the real engine: what the demo model is sure of stays, what it isn't goes on to parsers, a cloud, a
person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from demo.product import CloudProcess
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing.processes import await_ready, running, write
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, Document, generate

if TYPE_CHECKING:
    from tests.conftest import RunningEngine

pytestmark = pytest.mark.engine

CLEAN = [generate(seed) for seed in HELD_OUT_SEEDS[:12]]
STRANGE = [generate(seed, "clean", "anterion_de") for seed in HELD_OUT_SEEDS[:6]]
"""A layout that the model was not trained on and that a parser knows."""
DAMAGED = [generate(seed, "heavy", "oa2000_nl") for seed in HELD_OUT_SEEDS[:6]]
"""A layout without a parser, heavily damaged."""


@pytest.fixture(scope="module")
def place(
    engine: RunningEngine, standin: CloudProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Run a router in front of the real engine and a stand-in cloud; return its address and its configuration."""
    local = {"name": "local", "provider": "vllm", "base_url": engine.base_url, "model": engine.model}
    price = {"input_per_million": "0.15", "output_per_million": "0.60"}
    cloud = {
        "name": "cloud", "provider": "generic", "base_url": standin.url, "model": "strong", "api_key": standin.key,
        "price": price,
    }  # fmt: skip
    slo = {"ttft_ms": 60_000, "tpot_ms": 10_000}
    config = write(tmp_path_factory.mktemp("documents"), {"backends": [local, cloud], "slo": slo})
    with running("route", config) as process:
        await_ready(process.url, "local")
        yield process.url, config


def read(url: str, document: Document, **fields: Any) -> dict[str, Any]:
    body = {"text": document.text, **fields}
    reply = httpx.post(f"{url}/v1/documents/extract", json=body, timeout=120, trust_env=False)
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()
    return result


def test_clean_documents_are_extracted_locally_and_correctly(place: tuple[str, Path]) -> None:
    private = {"metadata": {"privacy": "private"}}
    results = [read(place[0], document, **private) for document in CLEAN]
    assert all(one["cost_usd"] == "0.000000" for one in results)
    answered = [(one, document) for one, document in zip(results, CLEAN, strict=True) if one["status"] == "answered"]
    assert len(answered) >= 9, [(one["step"], [s["why"] for s in one["steps"]]) for one in results]
    wrong = [document.layout for one, document in answered if one["values"] != document.truth]
    assert len(wrong) <= 1, wrong
    local = [one for one, _ in answered if one["step"] == "local"]
    assert local, "the model itself is sure of some"
    for one in local:
        assert 0.9 <= one["confidence"] <= 1
        assert set(one["fields"]) == {f"/{key}" for key in CLEAN[0].truth}
        assert all(0 <= field["confidence"] <= 1 for field in one["fields"].values())


def test_an_untrained_layout_is_read_by_its_parser(place: tuple[str, Path]) -> None:
    for document in STRANGE:
        one = read(place[0], document)
        if one["step"] == "local":
            continue  # the model was sure; a calibration would judge that better
        assert (one["step"], one["values"]) == ("parser", document.truth)
        assert one["read_by"]["model"] == "anterion_de"


def test_an_unreadable_document_waits_for_a_person(place: tuple[str, Path]) -> None:
    url, config = place
    results = [read(url, document, metadata={"privacy": "private"}) for document in DAMAGED]
    waiting = [one for one in results if one["status"] == "review"]
    assert waiting, [(one["step"], [s["why"] for s in one["steps"]]) for one in results]
    assert all(one["steps"][-1]["why"].startswith("private") for one in waiting)
    one = waiting[0]
    document = DAMAGED[results.index(one)]
    truth = [f"{key}={json.dumps(value)}" for key, value in document.truth.items()]
    fixed = CliRunner().invoke(app, ["reviews", "correct", one["review_id"], *truth, "-c", str(config), "--json"])
    assert fixed.exit_code == 0, fixed.output
    created = CliRunner().invoke(app, ["keys", "create", "admin", "--role", "admin", "-c", str(config), "--json"])
    admin = {"authorization": f"Bearer {json.loads(created.stdout)['key']}"}
    shown = httpx.get(f"{url}/v1/reviews/{one['review_id']}", headers=admin, timeout=30, trust_env=False).json()
    assert (shown["state"], shown["values"]) == ("corrected", document.truth)
    assert "".join(segment["text"] for segment in shown["highlighted"]) == document.text


def test_every_document_that_was_answered_counts_once_in_the_report(place: tuple[str, Path]) -> None:
    url, _ = place
    before = documents(url)
    for document in (CLEAN[0], STRANGE[0], DAMAGED[0]):
        read(url, document)
    assert documents(url) - before == 2  # the damaged one waits for a person


def documents(url: str) -> int:
    """Return the number of today's documents in the report."""
    report = httpx.get(f"{url}/v1/usage", timeout=30, trust_env=False).json()
    counts = [value for name, value in _walk(report) if name == "documents"]
    assert counts, report
    return max(counts)


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)
