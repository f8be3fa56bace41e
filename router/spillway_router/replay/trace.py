"""Traces: CSV files that say when requests came and how long they were.

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:15:46.6805900,374,44

These three columns are those of the Azure LLM inference traces (github.com/Azure/AzurePublicDataset). Further columns,
as in `OPTIONAL`, say more of each request. Rows are read one at a time, in the order of their times.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from spillway_router.core.replay.past import PastRequest
from spillway_router.core.routing.model import Caller

REQUIRED = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
OPTIONAL = ("model", "max_tokens", "key", "tier", "task", "complexity", "language", "private", "confidence")
_MOST_TOKENS = 10_000_000
_MICROSECONDS = len("2023-11-16 18:15:46.680590")


class TraceError(Exception):
    """A trace can't be read; the message says where and what to change."""


def read_trace(path: Path, speed: float = 1.0) -> Iterator[PastRequest]:
    """Yield the requests of a trace, `speed` times as fast as they came.

    The first one arrives when its time says; the pauses after it are divided by `speed`. Raises TraceError.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise TraceError(
                    f"{path}: the column {missing[0]} is missing; a trace begins with the line {','.join(REQUIRED)}"
                )
            yield from _requests(path, rows, speed)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path} can't be read: {error}") from None


def _requests(path: Path, rows: csv.DictReader[str], speed: float) -> Iterator[PastRequest]:
    first_s = latest_s = -math.inf
    for number, row in enumerate(rows):
        try:
            at_s = _moment(row["TIMESTAMP"])
            if first_s == -math.inf:
                first_s = at_s
            if at_s < latest_s:
                raise ValueError("its time is before that of the row above; sort the rows by TIMESTAMP")
            latest_s = at_s
            yield _request(number, first_s + (at_s - first_s) / speed, row)
        except (ValueError, TypeError) as error:
            raise TraceError(f"{path}, line {rows.line_num}: {error}") from None


def _moment(text: str) -> float:
    """Return epoch seconds; a time without a zone is UTC. Traces carry ticks of 100 ns, and datetime six decimals."""
    moment = datetime.fromisoformat(text[:_MICROSECONDS] if len(text) > _MICROSECONDS and "." in text else text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _request(number: int, arrival_s: float, row: Mapping[str, str]) -> PastRequest:
    confidence = row.get("confidence")
    return PastRequest(
        number=number,
        arrival_s=arrival_s,
        prompt_tokens=_tokens(row, "ContextTokens", 0),
        output_tokens=_tokens(row, "GeneratedTokens", 0),
        model=row.get("model") or "auto",
        max_tokens=_tokens(row, "max_tokens", 1) if row.get("max_tokens") else None,
        caller=Caller(key_id=row.get("key") or "", tier=row.get("tier") or ""),
        task=row.get("task") or "",
        complexity=_tokens(row, "complexity", 0) if row.get("complexity") else None,
        language=row.get("language") or "",
        private=(row.get("private") or "").lower() in ("1", "true", "yes"),
        confidence=_share(confidence) if confidence else None,
    )


def _tokens(row: Mapping[str, str], name: str, least: int) -> int:
    count = int(row[name])
    if not least <= count <= _MOST_TOKENS:
        raise ValueError(f"{name} is {count}; it must be from {least} to {_MOST_TOKENS}")
    return count


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"confidence is {text}; it must be from 0 to 1")
    return value
