"""Send many documents through a running router: JSON lines in, JSON lines out, concurrent and resumable.

Every line of the input is one document: `{"text": ...}` or `{"messages": [...]}`, with any other field of `POST
/v1/documents/extract`, and optionally an `id` of your own. Every line of the output is one result, in the order in
which the results were ready:

    {"line": 3, "id": "a", "sha256": "...", "result": {...}}      the router's reply
    {"line": 4, "id": "b", "sha256": "...", "error": {...}}       what was wrong with this document; the others continue

Each line is written whole, in one write. After a kill, a half-written last line is cut off. Lines that have a result
are not sent again; lines with an error are. `sha256` is the digest of the input line: where it differs, the output came
from another input, and nothing is changed.

Every line has its own idempotency key, derived from the names of both files, its number and its text. The router
finishes what was in flight at a kill; sending the line again returns the same reply, and nothing is paid twice. The
router keeps such a reply in memory for a day: if the router was killed too, it reads, and pays for, those lines again.
Private lines cost nothing, and are read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import httpx

from spillway_router.commands.running_router import RouterAddress

PATH = "/v1/documents/extract"
MAX_TRIES = 6
MAX_WAIT_S = 60.0
RETRIED = frozenset({429, 503})
SHORT_DIGEST = 16
KEY_DIGITS = 40


class BatchError(Exception):
    """The batch can't start or continue; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ExtractPlace:
    """The router that reads the documents; at most `max_in_flight` are sent at once."""

    router: RouterAddress
    max_in_flight: int = 8
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True)
class InputLine:
    """One input line: its number, counted from 1, and its text."""

    number: int
    text: str

    def key(self, source: Path, target: Path) -> str:
        """Return the idempotency key of the line, which is the same for every run from this input to this output."""
        identity = f"{source.resolve()}\n{target.resolve()}\n{self.number}\n{self.text}"
        return f"batch-{hashlib.sha256(identity.encode()).hexdigest()[:KEY_DIGITS]}"

    @property
    def sha256(self) -> str:
        """The first 16 hex digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:SHORT_DIGEST]


@dataclass(slots=True)
class BatchProgress:
    """How far a batch is. `before` counts the results of earlier runs; `results` includes `reviews`."""

    before: int = 0
    results: int = 0
    reviews: int = 0
    errors: int = 0
    cost_usd: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one output line."""
        result = row.get("result")
        if result is None:
            self.errors += 1
            return
        self.results += 1
        self.reviews += result.get("status") != "answered"
        self.cost_usd += float(result.get("cost_usd", 0))


async def extract_batch(
    source: Path, target: Path, place: ExtractPlace, on_row: Callable[[BatchProgress], None]
) -> BatchProgress:
    """Run a batch to its end, calling `on_row` after every output line. Raises `BatchError`."""
    progress = BatchProgress()
    done = _resume(source, target)
    progress.before = len(done)
    try:
        with target.open("ab", buffering=0) as out:
            lines = (line for line in read_lines(source) if line.number not in done)
            async for row in _results(lines, place, lambda line: line.key(source, target)):
                _write(out, row)
                progress.add(row)
                on_row(progress)
    except OSError as error:
        raise BatchError(f"{target} can't be written: {error.strerror or error}") from None
    return progress


def read_lines(source: Path) -> Iterator[InputLine]:
    """Yield the lines of a file that are not blank. Raises `BatchError`."""
    try:
        with source.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield InputLine(number, text.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError(f"{source} can't be read: {error}") from None


def count_lines(source: Path) -> int:
    """Count the documents of a batch. Raises `BatchError`."""
    return sum(1 for _ in read_lines(source))


def _resume(source: Path, target: Path) -> frozenset[int]:
    """Return the input lines that already have a result, and remove all other lines from the output. Raises
    `BatchError`."""
    if not target.exists():
        return frozenset()
    digests = {line.number: line.sha256 for line in read_lines(source)}
    finished_rows: list[bytes] = []
    done: set[int] = set()
    try:
        for raw in target.read_bytes().splitlines(keepends=True):
            row = _row(raw)
            if row is None:
                if raw.endswith(b"\n"):
                    raise BatchError(f"{target} holds a line that no batch wrote; choose another --out")
                continue  # cut off by a kill
            if digests.get(row["line"]) != row["sha256"]:
                raise BatchError(f"{target} was made from another input than {source}; choose another --out")
            if "result" in row and row["line"] not in done:
                finished_rows.append(raw)
                done.add(row["line"])
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(b"".join(finished_rows))
        os.replace(partial, target)
    except OSError as error:
        raise BatchError(f"{target} can't be resumed: {error.strerror or error}") from None
    return frozenset(done)


def _row(raw: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(raw)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("line"), int) and isinstance(row.get("sha256"), str)
    return row if is_row and raw.endswith(b"\n") else None


def _write(out: IO[bytes], row: Mapping[str, Any]) -> None:
    """Write one row with a single call, so that a kill cuts off the last line at most."""
    data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[out.write(data) :]


async def _results(
    lines: Iterable[InputLine], place: ExtractPlace, key_of: Callable[[InputLine], str]
) -> AsyncIterator[dict[str, Any]]:
    """Yield output rows as they are ready. The next input line is read when fewer than `max_in_flight` are in
    flight.

    This is not periodic work (aio/periodic.py): nothing is repeated and no clock drives it; it ends with the input.
    """
    async with extract_client(place) as extract_one:
        waiting = iter(lines)
        running: set[asyncio.Task[dict[str, Any]]] = set()
        try:
            while True:
                while len(running) < place.max_in_flight and (line := next(waiting, None)) is not None:
                    running.add(asyncio.ensure_future(_row_of(extract_one, line, key_of(line))))
                if not running:
                    return
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


class ExtractCall(Protocol):
    """Asks a router to extract one document and returns (status, reply or error)."""

    def __call__(self, body: Mapping[str, Any], key: str = "") -> Awaitable[tuple[int, Any]]:
        """Send one document; `key` is an idempotency key, "" for none."""


async def _row_of(extract_one: ExtractCall, line: InputLine, key: str) -> dict[str, Any]:
    row: dict[str, Any] = {"line": line.number, "id": None, "sha256": line.sha256}
    try:
        body = json.loads(line.text)
    except ValueError as error:
        return row | {"error": {"code": "invalid_json", "message": f"this line is not valid JSON: {error}"}}
    if not isinstance(body, dict):
        return row | {"error": {"code": "invalid_json", "message": "this line is not a JSON object"}}
    row["id"] = body.pop("id", None)
    status, reply = await extract_one(body, key)
    return row | ({"result": reply} if status == 200 else {"error": reply})


@asynccontextmanager
async def extract_client(place: ExtractPlace) -> AsyncIterator[ExtractCall]:
    """Open a connection to a router and yield the function that sends one document: body -> (status, reply or error).

    The function waits and retries while the router is overloaded.
    """
    router = place.router
    limits = httpx.Limits(max_connections=place.max_in_flight)
    async with httpx.AsyncClient(
        base_url=router.url,
        headers=router.headers,
        limits=limits,
        timeout=httpx.Timeout(place.timeout_s, connect=10.0),
        trust_env=False,
    ) as client:

        async def extract_one(body: Mapping[str, Any], key: str = "") -> tuple[int, Any]:
            for left in reversed(range(MAX_TRIES)):
                try:
                    reply = await client.post(PATH, json=body, headers={"idempotency-key": key} if key else None)
                except httpx.HTTPError as error:
                    return 0, {"code": "unreachable", "message": router.unreachable(error)}
                if reply.status_code not in RETRIED or not left:
                    break
                await asyncio.sleep(_wait_s(reply))
            return reply.status_code, _content(reply)

        yield extract_one


def _wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "1")
    return min(MAX_WAIT_S, float(text)) if text.isdecimal() else 1.0


def _content(reply: httpx.Response) -> Any:
    try:
        content = reply.json()
    except ValueError:
        return {"code": "not_spillway", "message": f"HTTP {reply.status_code} without JSON: is this a Spillway router?"}
    if reply.status_code == 200:
        return content
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {"code": "error", "message": f"HTTP {reply.status_code}"}
