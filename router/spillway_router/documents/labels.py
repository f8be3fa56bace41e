"""Labelled answers for `spillway calibrate`, from reviews that people decided and from audits. They hold no content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import orjson

from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.tables.labels import LabelTable
from spillway_router.ledger.tables.reviews import MOST_AT_ONCE, ReviewFilter, ReviewTable


def all_labels(ledger: Ledger, since_ms: int = 0, task: str = "") -> Iterator[dict[str, Any]]:
    """Yield the labels of reviews, then those of audits, in the shape that calibration/labelled.py reads.

    `since_ms` is epoch milliseconds. `task` selects one task ("": all), as a calibration is made for one. People see
    the answers that were not used, audits those that were: a fit needs both, and a certificate for the answers that
    are used needs those of audits.
    """
    for label in chain(review_labels(ledger.reviews, since_ms), audit_labels(ledger.labels, since_ms)):
        if task in ("", label["task"]):
            yield label


def review_labels(table: ReviewTable, since_ms: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the labels of decided reviews, newest first. Drafts of parsers are left out, as they have no scores."""
    page_filter = ReviewFilter(since_ms=since_ms, limit=MOST_AT_ONCE)
    while page := table.list(page_filter):
        for record in page:
            if record.label is not None and record.step in ("local", "external"):
                label = orjson.loads(record.label)
                yield {
                    "id": record.id,
                    "group": record.request_id,
                    "task": record.schema_name,
                    "model": record.model,
                    "backend": record.backend,
                    "scores": orjson.loads(record.scores)["scores"],
                    "confidence": record.confidence,
                    "right": label["right"],
                    "values": label["fields"],
                    "source": "review",
                    "ts_ms": record.decided_ms,
                }
        page_filter = replace(page_filter, before=(page[-1].created_ms, page[-1].id))


def audit_labels(table: LabelTable, since_ms: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the labels of audited answers, oldest first."""
    for record in table.all(since_ms):
        yield {
            "id": record.request_id,
            "group": record.request_id,
            "task": record.task,
            "model": record.model,
            "backend": record.backend,
            "scores": orjson.loads(record.scores),
            "confidence": record.confidence,
            "right": record.right,
            "values": orjson.loads(record.fields),
            "source": "audit",
            "ts_ms": record.ts,
        }
