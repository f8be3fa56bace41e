"""Ledger rows: what happened to money and GPU time, never what was said.

An entry is written once and never changed. `(request_id, attempt_no, kind)` is its identity: every attempt,
retry and hedge leg of a request has its own `attempt_no`, so each has its own reservation and its own
charge.

Kinds and what they mean for balances:

    reserved   a hold of `reserved_nano` before a paid call leaves; open until charged or released
    charged    the attempt is over: `amount_nano` is its cost (0 on local backends and with the client's own
               key), `gpu_us` its work share on a local backend; closes the hold of the same attempt
    released   the attempt cost nothing (never sent, refused); closes the hold
    adjusted   a later correction: `amount_nano` and the token counts are signed differences
    gpu_hour   rented time: `amount_nano` is the fixed cost of a span that starts at `ts`, `gpu_us` the GPU
               time in it (length x number of GPUs); see gpu_hours.py
    idle       unused share of a closed rental period; reports of an open period derive it (billed - used)
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal, NamedTuple, get_args

import orjson

Kind = Literal["reserved", "charged", "released", "adjusted", "gpu_hour", "idle"]

Status = Literal["", "ok", "error", "aborted", "discarded", "unknown"]
"""How an attempt ended: `ok` the client got this answer whole; `aborted` the client left during it; `error`
it failed; `discarded` a finished answer that was replaced (escalated local draft, lost hedge leg);
`unknown` nobody knows, it is charged at its bound until reconciled; empty where no attempt ended (reserved,
gpu_hour, idle)."""

ANSWERED: tuple[Status, ...] = ("ok", "aborted")
"""Statuses of which a request has at most one: these rows count requests that were answered, whole or in
part."""

KINDS: tuple[Kind, ...] = get_args(Kind)


class Entry(NamedTuple):
    """One ledger row: a tuple, as it goes to the database, so that no second shape of it is made on the way.

    `ts` epoch milliseconds UTC; `gpu_us` integer microseconds of one GPU; `amount_nano` and `reserved_nano`
    integer nano-dollars; `reasons` the decision's reason tokens joined by commas; `tariff_ref` which price
    was used (Tariff.ref); `confidence` in [0, 1] or None where no signal; `document` True for document
    extraction. `key_id` is the public id of a key, never its secret. `router_id` is the process that holds a
    reservation, so that another can close it when that one is gone. No field holds prompt or answer text.
    """

    kind: Kind
    request_id: str
    attempt_no: int
    ts: int
    backend: str = ""
    provider: str = ""
    model: str = ""
    local: bool = False
    key_id: str = ""
    tier: str = ""
    decision: str = ""
    reasons: str = ""
    status: Status = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    gpu_us: int = 0
    amount_nano: int = 0
    reserved_nano: int = 0
    tariff_ref: str = ""
    confidence: float | None = None
    task: str = ""
    document: bool = False
    router_id: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """Identity of the row in the ledger."""
        return (self.request_id, self.attempt_no, self.kind)


Row = tuple[Any, ...]
"""An entry's values in the order of COLUMNS."""

COLUMNS: tuple[str, ...] = Entry._fields
"""Column names in the order of `row_of`."""

_LOCAL = COLUMNS.index("local")
_DOCUMENT = COLUMNS.index("document")


def row_of(entry: Entry) -> Row:
    """The entry as a plain tuple, its confidence as a database gives it back: a float, and no negative zero."""
    confidence = entry.confidence
    if confidence is None or (confidence and type(confidence) is float):
        return tuple(entry)
    return tuple(entry._replace(confidence=confidence + 0.0))


def stored_row(row: Row) -> Row:
    """The row as it was written, from one of a database that has no booleans."""
    return (
        *row[:_LOCAL],
        bool(row[_LOCAL]),
        *row[_LOCAL + 1 : _DOCUMENT],
        bool(row[_DOCUMENT]),
        *row[_DOCUMENT + 1 :],
    )


def entry_of(row: Row) -> Entry:
    """The entry of a stored row in the order of COLUMNS."""
    return Entry._make(stored_row(row))


# The hash chain. Each stored row has a link: SHA-256 over the link before it and the row's canonical bytes, the compact
# JSON array of its values in the order of COLUMNS (text UTF-8, booleans true and false, no number but `confidence` a
# float). Any program that can read JSON and hash can check it. See decisions/ on why each row has its own.

GENESIS = bytes(32)
"""What stands for the link before the first row."""


def link_of(previous: bytes, row: Row) -> bytes:
    """The link of a row that follows one with the link `previous`.

    Raises TypeError (orjson.JSONEncodeError) if the row holds something that is no plain value or no valid text.
    """
    return sha256(previous + orjson.dumps(row)).digest()
