"""Names that clients and providers choose steer no terminal and no spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any, cast

import pytest

from spillway_router.commands import reviews
from spillway_router.ledger.reports import export
from spillway_router.ledger.reports.terminal import _cell

HOSTILE = "=cmd|'/C calc'!A0\x1b]0;owned\x07\x9b31m\u202e,\"x\""


def test_every_cell_of_the_focus_export_is_text() -> None:
    row = dict.fromkeys(export.FOCUS_COLUMNS, HOSTILE)
    line = ",".join(export._cells(cast("Any", row)))
    (cells,) = csv.reader(io.StringIO(line))
    assert len(cells) == len(export.FOCUS_COLUMNS)
    for cell in cells:
        assert cell.startswith("'=cmd")
        assert cell.isprintable()


def test_numbers_of_the_focus_export_stay_numbers() -> None:
    assert [export._quoted(text) for text in ("-0.25", "0", "1.5", "")] == ["-0.25", "0", "1.5", ""]


def test_names_in_the_report_of_a_terminal() -> None:
    assert _cell(HOSTILE).plain.isprintable()


def test_a_review_with_a_hostile_document(capsys: pytest.CaptureFixture[str]) -> None:
    review = {
        "id": "rev_1",
        "state": "open",
        "created_ms": 0,
        "schema": HOSTILE,
        "request_id": "req_1",
        "why": HOSTILE,
        "document": HOSTILE,
        "highlighted": [{"text": f"line\n{HOSTILE}", "field": ""}, {"text": HOSTILE, "field": f"/{HOSTILE}"}],
        "fields": {f"/{HOSTILE}": {"confidence": None, "value": HOSTILE, "why": HOSTILE}},
        "values": {},
        "drafted": {"a": HOSTILE},
    }
    reviews._print(review)
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
