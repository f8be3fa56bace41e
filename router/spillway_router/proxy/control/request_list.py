"""`GET /v1/requests`: the newest requests, one line each, from memory and from the ledger.

Memory knows the newest requests of this router in full, refused ones among them. The ledger knows the older ones and
those of other routers, but only what was charged: no times, and no request that was refused before an attempt. A line
says which of the two it comes from. No line holds text of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request

from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Caller, RequestRecord
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.entries import ANSWERED, CACHE, Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.ids import arrival_ms
from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import READER_ROLES, REVIEW_ROLES
from spillway_router.proxy.request.errors import bad_request

Ended = Literal["ok", "refused", "error", "aborted", "open"]
"""How a request ended: answered; refused by the router before any attempt; failed; left by its client; not over yet."""
EntriesBefore = Callable[[str, int], Sequence[Entry]]
"""The ledger's `entries_before`."""

MOST_LINES = 500
_ROWS = 2_000
"""The rows of the ledger that are read at a time."""
_MOST_READS = 10
"""How often that many rows are read for one page, however few of them pass its filters."""
_END = "req_g"
"""The text before which all ids stand."""
_LEFT = 499
_PARAMETERS = frozenset(
    {"key", "model", "backend", "decision", "reason", "ended", "slow_ms", "cost_usd", "before", "after", "limit"}
)


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request of the list. Times are milliseconds, `arrived_ms` since the epoch; `cost_nano` is in nano-dollars.

    `status` is the HTTP status that the client got, `alias` the model that it asked for, `total_ms` the time to the end
    of the answer, and `first_token_ms` that to the first event of the last attempt. They are None, and `endpoint`,
    `alias` and `code` empty, in lines from the ledger, which does not keep them.
    """

    id: str
    arrived_ms: int | None
    key_id: str
    ended: Ended
    decision: str
    reasons: tuple[str, ...]
    backend: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int
    estimated: bool
    confidence: float | None
    attempts: int
    source: Literal["memory", "ledger"]
    status: int | None = None
    code: str = ""
    endpoint: str = ""
    alias: str = ""
    private: bool | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines are wanted; empty and None stand for any. `after` and `before` are ids, both left out of the list.

    `owner_id` is the key of a caller that may see its own requests only.
    """

    key_id: str = ""
    model: str = ""
    backend: str = ""
    decision: str = ""
    reason: str = ""
    ended: str = ""
    slow_ms: float | None = None
    cost_nano: int | None = None
    before: str = _END
    after: str = ""
    owner_id: str | None = None

    def passes(self, line: RequestLine) -> bool:
        """Return whether the list has this line."""
        return (
            self.after < line.id < self.before
            and self.owner_id in (None, line.key_id)
            and self.key_id in ("", line.key_id)
            and self.model in ("", line.model, line.alias)
            and self.backend in ("", line.backend)
            and self.decision in ("", line.decision)
            and self.ended in ("", line.ended)
            and (not self.reason or self.reason in line.reasons)
            and (self.slow_ms is None or (line.total_ms or 0) >= self.slow_ms)
            and (self.cost_nano is None or line.cost_nano >= self.cost_nano)
        )


def line_of_record(record: RequestRecord) -> RequestLine:
    """Return the line of a request in memory."""
    usages = [attempt.outcome.usage for attempt in record.attempts if attempt.outcome.usage is not None]
    last = record.attempts[-1] if record.attempts else None
    first_event_s = None if last is None else last.first_event_s
    return RequestLine(
        id=record.facts.request_id,
        arrived_ms=arrival_ms(record.facts.request_id),
        key_id=record.facts.caller.key_id,
        ended=_ended(record),
        decision=record.decided,
        reasons=record.reasons,
        backend=record.backend,
        model=record.model,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cost_nano=record.cost_nano,
        estimated=any(attempt.at_most_nano is not None for attempt in record.attempts),
        confidence=record.confidence,
        attempts=len(record.attempts),
        source="memory",
        status=record.status,
        code=record.code,
        endpoint=record.facts.endpoint,
        alias=record.facts.model,
        private=not record.facts.privacy.may_leave,
        first_token_ms=None if first_event_s is None else round(first_event_s * 1000, 2),
        total_ms=round(record.total_s * 1000, 2),
    )


def _ended(record: RequestRecord) -> Ended:
    if record.status == _LEFT:
        return "aborted"
    if record.status < 400:
        return "ok"
    return "error" if record.attempts else "refused"


def line_of_entries(entries: Sequence[Entry]) -> RequestLine:
    """Return the line of a request by its rows, of which there is at least one."""
    closed = [entry for entry in entries if entry.kind in ("charged", "released")]
    answers = [entry for entry in closed if entry.status in ANSWERED]
    shown = (answers or closed or list(entries))[-1]
    charged = [entry for entry in entries if entry.kind in ("charged", "adjusted")]
    ended: Ended = "aborted" if shown.status == "aborted" else "ok" if answers else "error" if closed else "open"
    return RequestLine(
        id=shown.request_id,
        arrived_ms=arrival_ms(shown.request_id),
        key_id=shown.key_id,
        ended=ended,
        decision=shown.decision,
        reasons=tuple(shown.reasons.split(",")) if shown.reasons else (),
        backend=shown.backend,
        model=shown.model,
        prompt_tokens=sum(entry.prompt_tokens for entry in charged),
        completion_tokens=sum(entry.completion_tokens for entry in charged),
        cost_nano=sum(entry.amount_nano for entry in charged),
        estimated=sum(entry.at_most_nano for entry in charged) > 0,
        confidence=shown.confidence,
        attempts=0 if shown.backend == CACHE else len({entry.attempt for entry in entries}),
        source="ledger",
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Lines of the ledger, newest first. `next_id` is the id before which to go on reading; "" if nothing is left."""

    lines: tuple[RequestLine, ...]
    next_id: str


def stored_lines(entries_before: EntriesBefore, wanted: LineFilter, limit: int) -> _Found:
    """Read the newest lines that pass from the ledger, at most `limit` of them, by a bounded number of reads."""
    lines: list[RequestLine] = []
    before = wanted.before
    for _ in range(_MOST_READS):
        rows = entries_before(before, _ROWS)
        for entries in _whole_requests(rows):
            before = entries[0].request_id
            if before <= wanted.after:
                return _Found(tuple(lines), "")
            line = line_of_entries(entries)
            if wanted.passes(line):
                lines.append(line)
                if len(lines) == limit:
                    return _Found(tuple(lines), before)
        if len(rows) < _ROWS:
            return _Found(tuple(lines), "")
    return _Found(tuple(lines), before)


def _whole_requests(rows: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield the rows of each request. The last one is left for the next read if rows of it may be missing."""
    requests = [list(entries) for _, entries in groupby(rows, key=lambda entry: entry.request_id)]
    yield from requests[:-1] if len(rows) == _ROWS and len(requests) > 1 else requests


def page_of(recent: Iterable[RequestLine], stored: _Found, limit: int) -> tuple[list[RequestLine], str | None]:
    """Merge both sources, newest first, each request once and rather from memory; return the lines, and the id before
    which the next page begins, None after the last one."""
    lines = {line.id: line for line in (*stored.lines, *recent)}
    merged = sorted(lines.values(), key=lambda line: line.id, reverse=True)
    if stored.next_id:  # what is older than this was not read
        merged = [line for line in merged if line.id >= stored.next_id]
    if len(merged) > limit:
        return merged[:limit], merged[limit - 1].id
    return merged, stored.next_id or None


def line_values(line: RequestLine) -> dict[str, Any]:
    """Return a line as JSON values: its cost as decimal text in USD."""
    values = asdict(line)
    return {**values, "cost_usd": usd(values.pop("cost_nano"))}


def add_request_list(api: FastAPI, services: Services, entries_before: EntriesBefore) -> None:
    """Add the route."""

    @api.get("/v1/requests")
    async def list_requests(
        request: Request,
        key: Annotated[str, Query(description="only of the key with this id")] = "",
        model: Annotated[str, Query(description="only of this alias, or answered by this model")] = "",
        backend: Annotated[str, Query(description="only answered by this backend")] = "",
        decision: Annotated[str, Query(description="only with this decision, such as overflow")] = "",
        reason: Annotated[str, Query(description="only with this reason, such as queue")] = "",
        ended: Annotated[str, Query(description="ok, refused, error, aborted or open")] = "",
        slow_ms: Annotated[
            str, Query(description="only those that took at least so many milliseconds", json_schema_extra=_NUMBER)
        ] = "",
        cost_usd: Annotated[
            str, Query(description="only those that cost at least so many US dollars", json_schema_extra=_NUMBER)
        ] = "",
        before: Annotated[str, Query(description="only older ones than this id; `next` of the previous page")] = "",
        after: Annotated[str, Query(description="only newer ones than this id")] = "",
        limit: Annotated[
            str, Query(description=f"at most so many, up to {MOST_LINES}", json_schema_extra=_UP_TO_500)
        ] = "50",
    ) -> Any:
        """List the newest requests: those in memory, and the older ones of the ledger."""
        caller = caller_of(services, request, READER_ROLES)
        _check_names(request)
        values = {"key": key, "model": model, "backend": backend, "decision": decision, "reason": reason}
        values |= {"ended": ended, "slow_ms": slow_ms, "cost_usd": cost_usd, "before": before, "after": after}
        most = int(_number("limit", limit, MOST_LINES, least=1))
        page = await listed(services, entries_before, filter_of(values, caller), most)
        return {
            "requests": [line_values(line) for line in page.lines],
            "next": page.following,
            "notice": page.notice,
        }


_NUMBER: dict[str, Any] = {"pattern": r"^([0-9]{1,6}(\.[0-9]{1,9})?)?$"}
_UP_TO_500: dict[str, Any] = {"pattern": "^([1-9][0-9]?|[1-4][0-9]{2}|500)$"}
"""What the description of the API says of numbers; requests are judged by `_number`."""


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some lines, newest first; the id before which the next page begins, None after the last one; and what is missing,
    "" if nothing is."""

    lines: Sequence[RequestLine]
    following: str | None
    notice: str


def filter_of(values: Mapping[str, str], caller: Caller) -> LineFilter:
    """Return the filter that the parameters of a list make; a caller that may see its own requests only sees these.

    Raises RefusedError for a number that is none.
    """
    slow_ms, cost_usd = values.get("slow_ms", ""), values.get("cost_usd", "")
    return LineFilter(
        key_id=values.get("key", ""),
        model=values.get("model", ""),
        backend=values.get("backend", ""),
        decision=values.get("decision", ""),
        reason=values.get("reason", ""),
        ended=values.get("ended", ""),
        slow_ms=_number("slow_ms", slow_ms, 10**9) if slow_ms else None,
        cost_nano=int(_number("cost_usd", cost_usd, 10**6) * 10**9) if cost_usd else None,
        before=values.get("before", "") or _END,
        after=values.get("after", ""),
        owner_id=None if caller.role in REVIEW_ROLES else caller.key_id,
    )


async def listed(services: Services, entries_before: EntriesBefore, wanted: LineFilter, most: int) -> RequestPage:
    """Return the newest requests that pass: those in memory, and the older ones of the ledger."""
    recent = [line_of_record(record) for record in services.records.recent(MOST_LINES)]
    shown = [line for line in recent if wanted.passes(line)]
    try:
        stored = await LEDGER_CALLS.run(stored_lines, entries_before, wanted, most, limit_s=CLIENT_LIMIT_S)
    except LedgerError as error:
        stored, notice = _Found((), ""), f"The ledger is away, so only the newest requests are listed: {error}"
    else:
        notice = ""
    return RequestPage(*page_of(shown, stored, most), notice)


def _check_names(request: Request) -> None:
    unknown = sorted(request.query_params.keys() - _PARAMETERS)
    if unknown:
        raise bad_request(f"Unknown parameter {unknown[0]!r}. Use {', '.join(sorted(_PARAMETERS))}.", unknown[0])


def _number(name: str, text: str, most: float, least: float = 0) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else -1
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise bad_request(f"{name}: write a number from {least:g} to {most:,.0f}, not {text[:50]!r}.", name)
    return value
