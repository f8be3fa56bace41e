"""Request traces: when a request came, how long its prompt was and how many tokens it produced."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "traces"
NAMES = ("conv", "code")


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One line of a trace. `arrival_s` counts seconds from the first request."""

    number: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


def load(name: str, speed: float = 1.0, limit: int | None = None) -> list[TraceRequest]:
    """Read the trace `name` with its time compressed by `speed`; only its first `limit` requests if given.

    Raises:
        ValueError: the name is unknown or the speed is not above 0.
    """
    if name not in NAMES:
        raise ValueError(f"no trace named {name!r}; there are {', '.join(NAMES)}")
    if not speed > 0:
        raise ValueError(f"speed must be above 0, got {speed}")
    return list(_read(FOLDER / f"{name}.csv", speed, limit))


def _read(path: Path, speed: float, limit: int | None) -> Iterator[TraceRequest]:
    with path.open(newline="", encoding="ascii") as lines:
        start = None
        for number, row in enumerate(csv.DictReader(lines)):
            if limit is not None and number >= limit:
                return
            # The traces carry 100 ns ticks; datetime reads six decimals.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            start = start or at
            arrival = (at - start).total_seconds() / speed
            yield TraceRequest(
                number=number,
                arrival_s=arrival,
                prompt_tokens=int(row["ContextTokens"]),
                output_tokens=int(row["GeneratedTokens"]),
            )
