"""Ledger rows: what happened to money and GPU time, never what was said.

An entry is written once and never changed. Its identity is `(request_id, attempt_no, kind)`: every attempt of a
request, retries included, has its own `attempt_no`, and so its own reservation and its own charge.

The kinds, and what they mean for balances:

    reserved   a hold of `reserved_nano` before a paid call leaves; open until charged or released
    charged    the attempt is over: `amount_nano` is its charge (0 on local backends and with the client's own key),
               `gpu_us` its work share on a local backend; closes the hold of the same attempt, but for `reserved_nano`,
               which budgets go on holding until an estimated cost is known
    released   the attempt cost nothing (it was never sent, or refused); closes the hold
    adjusted   a later correction: `amount_nano` and all counts are signed differences, `reserved_nano` is what the
               charge kept and is given back now. An attempt that was corrected before, but not for sure, has further
               such rows, whose `attempt_no` is FURTHER higher each, and whose `ts` is that of the hold
    gpu_hour   rented time: `amount_nano` is the fixed cost of a span that starts at `ts`, `gpu_us` the GPU time in it
               (length x number of GPUs); see rentals/books.py
    fixed      another fixed cost, such as a disk: `amount_nano` is the cost of a span that starts at `ts`; see
               rentals/other_costs.py
    fixed_adjusted  a later correction of the gpu_hour, idle or fixed rows of the day that contains `ts`: `amount_nano`
               and `gpu_us` are signed differences, `decision` names the kind that is corrected, `attempt_no` counts the
               corrections with the same `request_id`; see rentals/corrections.py
    idle       the unused part of a day's rent; reports of a day that is not over derive it (billed - used)

What is not known for sure. The amount of a charged row is exact, or an estimate: then `estimated_nano` is the amount,
and `at_most_nano` (above 0) is what the attempt can have cost at most. A row that adjusts an estimate to the true cost
takes both back with their signs turned. So over any rows the sum of `estimated_nano` is the money that is not known for
sure, the sum of `at_most_nano` what it may be at most, and the rows with `at_most_nano` above 0 minus those below 0 are
the attempts it belongs to (`unsure` of them).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Literal, NamedTuple, get_args

import orjson

Kind = Literal["reserved", "charged", "released", "adjusted", "gpu_hour", "idle", "fixed", "fixed_adjusted"]

Status = Literal["", "ok", "error", "aborted", "discarded", "unknown"]
"""How an attempt ended.

`ok`: the client got the whole answer. `aborted`: the client left during the answer. `error`: the attempt failed, or was
given up for another one.
`discarded`: the answer was finished but replaced (a local draft that was escalated). `unknown`: the end is unknown, and
the attempt is charged at its bound until it is reconciled. Empty: no attempt ended (reserved, fixed cost).
"""

ANSWERED: tuple[Status, ...] = ("ok", "aborted")
"""The statuses of attempts that answered a request, in whole or in part. A request has at most one such attempt."""

CACHE = "cache"
"""The backend and the decision of a row whose request got a stored answer."""
REVIEW = "review"
"""The backend of a document's last step, a person. Such a row is whole, but it answers nothing yet."""

FURTHER = 1_000_000
"""What is added to `attempt_no` for each further correction of an attempt; no request has as many attempts."""

KINDS: tuple[Kind, ...] = get_args(Kind)
SIGNED: tuple[Kind, ...] = ("adjusted", "fixed_adjusted")
"""The kinds whose amounts and counts are differences, which may be negative."""
FIXED: tuple[Kind, ...] = ("gpu_hour", "idle", "fixed", "fixed_adjusted")
"""The kinds of fixed cost, which belongs to no budget."""


class Entry(NamedTuple):
    """One ledger row. It is a tuple, the shape in which it goes to the database, so that it never has to be converted.

    `ts` is in epoch milliseconds UTC, `gpu_us` in integer microseconds of one GPU, `amount_nano` and `reserved_nano` in
    integer nano-dollars. `reasons` are the decision's reason tokens joined by commas, `tariff_ref` names the price used
    (Tariff.ref), `confidence` is in [0, 1], or None without a signal, and `document` is True for document extraction.
    `key_id` is the public id of a key, never its secret. `router_id` is the process that holds a reservation; it lets
    another process close the reservation when that process is gone. No field holds prompt or answer text.

    The columns from `user_id` on are at their defaults in most rows. `user_id` names the end user of a key
    (core/money/users.py), where a cap for each user asks for it. The others say what else was billed:
    `cache_write_tokens` were written to the provider's prompt cache, `cache_write_long_tokens` are those of them that
    it keeps for an hour or longer; `service` is the mode that was billed (`flex`, `fast+us`; empty for the usual one);
    `billed_us` are microseconds at a price per second. `media_tokens` are the tokens among the prompt and the
    completion that have prices of their own, `calls` the uses of the provider's tools by the names of their fees, both
    as `counts_text` writes them. `saved_nano` is what the stored answer had cost that a request got from the cache.
    `experiment` is the mark of the arm of an experiment in which the request was (core/routing/experiments.py), and
    `took_ms` counts the milliseconds from such a request's arrival to the end of the attempt.
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
    user_id: str = ""
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    service: str = ""
    billed_us: int = 0
    media_tokens: str = ""
    calls: str = ""
    estimated_nano: int = 0
    at_most_nano: int = 0
    saved_nano: int = 0
    experiment: str = ""
    took_ms: int = 0

    @property
    def key(self) -> tuple[str, int, str]:
        """The identity of the row in the ledger."""
        return (self.request_id, self.attempt_no, self.kind)

    @property
    def attempt(self) -> int:
        """The number of the attempt that the row is about, also where it is a further correction."""
        return self.attempt_no % FURTHER


Row = tuple[Any, ...]
"""The values of an entry in the order of COLUMNS, without the last ones (from BASE on) if all of these are defaults."""

COLUMNS: tuple[str, ...] = Entry._fields
"""The column names, in the order of an entry's fields."""

BASE = COLUMNS.index("user_id")
"""The number of columns that every row has. A row whose other columns are all at their defaults is stored, sent and
linked without them, which is nearly every row."""
BEFORE_SAVED = COLUMNS.index("saved_nano")
"""The number of columns of a row that has others of these, but saved nothing."""
BEFORE_EXPERIMENT = COLUMNS.index("experiment")
"""The number of columns of a row that saved something and is in no experiment."""
REST: Row = tuple(Entry._field_defaults[name] for name in COLUMNS[BASE:])
"""The defaults of the other columns."""

_LOCAL = COLUMNS.index("local")
_DOCUMENT = COLUMNS.index("document")


def row_of(entry: Entry) -> Row:
    """Return the entry as a row, its confidence as a database returns it: a float, never a negative zero."""
    row = entry[:BASE] if entry[BASE:] == REST else _trimmed(entry)
    confidence: Any = entry.confidence  # not `float`, which compiled code also believes of the whole number 1
    if confidence is None or (confidence and type(confidence) is float):
        return row
    return (*row[:CONFIDENCE], confidence + 0.0, *row[CONFIDENCE + 1 :])


def _trimmed(row: Row) -> Row:
    if row[BEFORE_EXPERIMENT]:
        return tuple(row)
    return row[: BEFORE_EXPERIMENT if row[BEFORE_SAVED] else BEFORE_SAVED]


CONFIDENCE = COLUMNS.index("confidence")


def stored_row(row: Row) -> Row:
    """Return a row as it was written, given all columns of a row of a database that has no booleans."""
    # Of every row that is verified, so by the fastest way.
    values = list(row[:BASE] if row[BASE:] == REST else _trimmed(row))
    values[_LOCAL] = values[_LOCAL] == 1
    values[_DOCUMENT] = values[_DOCUMENT] == 1
    return tuple(values)


def entry_of(row: Row) -> Entry:
    """Return the entry of a stored row, with or without the columns from BASE on that have their defaults."""
    values = [*row, *REST[len(row) - BASE :]]
    values[_LOCAL] = values[_LOCAL] == 1
    values[_DOCUMENT] = values[_DOCUMENT] == 1
    return Entry._make(values)


def counts_text(counts: Iterable[tuple[str, int]]) -> str:
    """Return counts by name as they stand in a row: compact JSON, ordered by name; empty without any."""
    by_name = {name: count for name, count in counts if count}
    return orjson.dumps(by_name, option=orjson.OPT_SORT_KEYS).decode() if by_name else ""


def counts_of(text: str) -> tuple[tuple[str, int], ...]:
    """Return the counts of a row by name. Raises ValueError if the text is none of `counts_text`."""
    return tuple(orjson.loads(text).items()) if text else ()


# The hash chain. Each stored row has a link: the SHA-256 of the previous link and the row's canonical bytes. These are
# the compact JSON array of its values in the order of COLUMNS (text in UTF-8, booleans as true and false, `confidence`
# as the only float). The columns from `user_id` on are left out together if all of them have their defaults, 0 or empty
# text; else `experiment` and `took_ms`, the last ones, are left out if `experiment` is empty, and `saved_nano` before
# them if it is 0 then. These are the rules by which rows are linked that are older than these columns, so an upgrade
# changes no link, and a router that has not been upgraded yet may go on writing beside one that has. Any program that
# can read JSON and compute a hash can check the chain.

GENESIS = bytes(32)
"""The link before the first row."""


def link_of(previous: bytes, row: Row) -> bytes:
    """Return the link of a row that follows a row with the link `previous`.

    Raises TypeError (orjson.JSONEncodeError) if a value of the row is not a plain value or not valid text.
    """
    return sha256(previous + orjson.dumps(row)).digest()
