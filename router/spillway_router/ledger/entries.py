"""Ledger rows: what happened to money and GPU time, never what was said.

An entry is written once and never changed. Its identity is `(request_id, attempt_no, kind)`: every attempt of a
request, retries included, has its own `attempt_no`, and so its own reservation and its own charge.

The kinds, and what they mean for balances:

    reserved   a hold of `reserved_nano` before a paid call leaves; open until charged or released
    charged    the attempt is over: `amount_nano` is its charge (0 on local backends and with the client's own key),
               `gpu_us` its work share on a local backend; closes the hold of the same attempt
    released   the attempt cost nothing (it was never sent, or refused); closes the hold
    adjusted   a later correction: `amount_nano` and the token counts are signed differences
    gpu_hour   rented time: `amount_nano` is the fixed cost of a span that starts at `ts`, `gpu_us` the GPU time in it
               (length x number of GPUs); see rentals/books.py
    idle       the unused part of a day's rent; reports of a day that is not over derive it (billed - used)
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal, NamedTuple, get_args

import orjson

Kind = Literal["reserved", "charged", "released", "adjusted", "gpu_hour", "idle"]

Status = Literal["", "ok", "error", "aborted", "discarded", "unknown"]
"""How an attempt ended.

`ok`: the client got the whole answer. `aborted`: the client left during the answer. `error`: the attempt failed.
`discarded`: the answer was finished but replaced (a local draft that was escalated). `unknown`: the end is unknown, and
the attempt is charged at its bound until it is reconciled. Empty: no attempt ended (reserved, gpu_hour, idle).
"""

ANSWERED: tuple[Status, ...] = ("ok", "aborted")
"""The statuses of attempts that answered a request, in whole or in part. A request has at most one such attempt."""

KINDS: tuple[Kind, ...] = get_args(Kind)


class Entry(NamedTuple):
    """One ledger row. It is a tuple, the shape in which it goes to the database, so that it never has to be converted.

    `ts` is in epoch milliseconds UTC, `gpu_us` in integer microseconds of one GPU, `amount_nano` and `reserved_nano` in
    integer nano-dollars. `reasons` are the decision's reason tokens joined by commas, `tariff_ref` names the price used
    (Tariff.ref), `confidence` is in [0, 1], or None without a signal, and `document` is True for document extraction.
    `key_id` is the public id of a key, never its secret. `router_id` is the process that holds a reservation; it lets
    another process close the reservation when that process is gone. No field holds prompt or answer text.
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
        """The identity of the row in the ledger."""
        return (self.request_id, self.attempt_no, self.kind)


Row = tuple[Any, ...]
"""The values of an entry in the order of COLUMNS."""

COLUMNS: tuple[str, ...] = Entry._fields
"""The column names, in the order of an entry's fields."""

_LOCAL = COLUMNS.index("local")
_DOCUMENT = COLUMNS.index("document")


def row_of(entry: Entry) -> Row:
    """Return the entry as a plain tuple, its confidence as a database returns it: a float, never a negative zero."""
    confidence = entry.confidence
    if confidence is None or (confidence and type(confidence) is float):
        return tuple(entry)
    return tuple(entry._replace(confidence=confidence + 0.0))


def stored_row(row: Row) -> Row:
    """Return a row as it was written, given the row of a database that has no booleans."""
    return (
        *row[:_LOCAL],
        bool(row[_LOCAL]),
        *row[_LOCAL + 1 : _DOCUMENT],
        bool(row[_DOCUMENT]),
        *row[_DOCUMENT + 1 :],
    )


def entry_of(row: Row) -> Entry:
    """Return the entry of a stored row, whose values are in the order of COLUMNS."""
    return Entry._make(stored_row(row))


# The hash chain. Each stored row has a link: the SHA-256 of the previous link and the row's canonical bytes. These are
# the compact JSON array of its values in the order of COLUMNS (text in UTF-8, booleans as true and false, `confidence`
# as the only float). Any program that can read JSON and compute a hash can check the chain.

GENESIS = bytes(32)
"""The link before the first row."""


def link_of(previous: bytes, row: Row) -> bytes:
    """Return the link of a row that follows a row with the link `previous`.

    Raises TypeError (orjson.JSONEncodeError) if a value of the row is not a plain value or not valid text.
    """
    return sha256(previous + orjson.dumps(row)).digest()
