"""Many documents through a running router: JSON lines in, JSON lines out, so many at once, resumable.

Every line of the input is one document: `{"text": ...}` or `{"messages": [...]}`, with whatever else `POST
/v1/documents/extract` takes, and an `id` of your own if you like. Every line of the output is one result, in the order
in which they were ready:

    {"line": 3, "id": "a", "sha256": "...", "result": {...}}      the router's reply
    {"line": 4, "id": "b", "sha256": "...", "error": {...}}       what was wrong with this one; the others go on

A line goes out whole, at once. After a kill, a half-written last line is cut off and lines that have a result are not
asked again; those with an error are. `sha256` is that of the input line: where it differs, the output was made from
another input, and nothing is touched.

Every line has an idempotency key of its own, made from both files' names, its number and its text. What was on its way
at a kill the router reads to its end; asked again it gives the same reply, and nothing is paid twice. It keeps such a
reply for a day, in its memory: a router that was killed too reads, and pays, those lines again. Private lines cost
nothing, and are read again.
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

PATH = "/v1/documents/extract"
MOST_TRIES = 6
LONGEST_WAIT_S = 60.0
RETRIED = frozenset({429, 503})
SHORT_DIGEST = 16
KEY_DIGITS = 40


class BatchError(Exception):
    """The batch can't begin or go on; the message says what to change."""


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """Where to ask. `url` is the router's root; `most_at_once` documents on their way at the same time."""

    url: str
    key: str = ""
    private: bool = False
    most_at_once: int = 8
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True)
class InputLine:
    """One input line: its number from 1, its text, and its digest."""

    number: int
    text: str

    def key(self, source: Path, target: Path) -> str:
        """Its idempotency key: the same for every run from this input to this output."""
        told = f"{source.resolve()}\n{target.resolve()}\n{self.number}\n{self.text}"
        return f"batch-{hashlib.sha256(told.encode()).hexdigest()[:KEY_DIGITS]}"

    @property
    def sha256(self) -> str:
        """The first 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:SHORT_DIGEST]


@dataclass(slots=True)
class BatchProgress:
    """How far a batch is. `before`: results of an earlier run."""

    before: int = 0
    results: int = 0
    reviews: int = 0
    errors: int = 0
    cost_usd: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one more output line."""
        result = row.get("result")
        if result is None:
            self.errors += 1
            return
        self.results += 1
        self.reviews += result.get("status") != "answered"
        self.cost_usd += float(result.get("cost_usd", 0))


async def extract_batch(
    source: Path, target: Path, place: RouterAddress, on_row: Callable[[BatchProgress], None]
) -> BatchProgress:
    """Run a batch to its end; `on_row` hears of every output line. Raises BatchError."""
    tally = BatchProgress()
    done = _resumed(source, target)
    tally.before = len(done)
    try:
        with target.open("ab", buffering=0) as out:
            lines = (line for line in read_lines(source) if line.number not in done)
            async for row in _results(lines, place, lambda line: line.key(source, target)):
                _write(out, row)
                tally.add(row)
                on_row(tally)
    except OSError as error:
        raise BatchError(f"{target}: can't be written: {error.strerror or error}") from None
    return tally


def read_lines(source: Path) -> Iterator[InputLine]:
    """The lines of a file that are not blank. Raises BatchError."""
    try:
        with source.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield InputLine(number, text.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError(f"{source}: can't be read: {error}") from None


def count_lines(source: Path) -> int:
    """How many documents a batch has. Raises BatchError."""
    return sum(1 for _ in read_lines(source))


def _resumed(source: Path, target: Path) -> frozenset[int]:
    """The input lines that have a result already; what is left of the output is those alone. Raises BatchError."""
    if not target.exists():
        return frozenset()
    digests = {line.number: line.sha256 for line in read_lines(source)}
    kept: list[bytes] = []
    done: set[int] = set()
    try:
        for raw in target.read_bytes().splitlines(keepends=True):
            row = _row(raw)
            if row is None:
                if raw.endswith(b"\n"):
                    raise BatchError(f"{target}: holds a line that no batch wrote; choose another --out")
                continue  # cut off by a kill
            if digests.get(row["line"]) != row["sha256"]:
                raise BatchError(f"{target}: was made from another input than {source}; choose another --out")
            if "result" in row and row["line"] not in done:
                kept.append(raw)
                done.add(row["line"])
        beside = target.with_name(target.name + ".part")
        beside.write_bytes(b"".join(kept))
        os.replace(beside, target)
    except OSError as error:
        raise BatchError(f"{target}: can't be resumed: {error.strerror or error}") from None
    return frozenset(done)


def _row(raw: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(raw)
    except ValueError:
        return None
    known = isinstance(row, dict) and isinstance(row.get("line"), int) and isinstance(row.get("sha256"), str)
    return row if known and raw.endswith(b"\n") else None


def _write(out: IO[bytes], row: Mapping[str, Any]) -> None:
    """One write per line: a kill cuts off the last line at most."""
    data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[out.write(data) :]


async def _results(
    lines: Iterable[InputLine], place: RouterAddress, key_of: Callable[[InputLine], str]
) -> AsyncIterator[dict[str, Any]]:
    """Output lines as they are ready, `most_at_once` under way: the next input line is read when one is done."""
    async with asking(place) as ask:
        waiting = iter(lines)
        running: set[asyncio.Task[dict[str, Any]]] = set()
        try:
            while True:
                while len(running) < place.most_at_once and (line := next(waiting, None)) is not None:
                    running.add(asyncio.ensure_future(_one(ask, line, key_of(line))))
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
    """Asks a router to read one document: (status, reply or error)."""

    def __call__(self, body: Mapping[str, Any], key: str = "") -> Awaitable[tuple[int, Any]]:
        """`key`: an idempotency key; "": none."""


async def _one(ask: ExtractCall, line: InputLine, key: str) -> dict[str, Any]:
    row: dict[str, Any] = {"line": line.number, "id": None, "sha256": line.sha256}
    try:
        body = json.loads(line.text)
    except ValueError as error:
        return row | {"error": {"code": "invalid_json", "message": f"this line is not valid JSON: {error}"}}
    if not isinstance(body, dict):
        return row | {"error": {"code": "invalid_json", "message": "this line is no JSON object"}}
    row["id"] = body.pop("id", None)
    status, told = await ask(body, key)
    return row | ({"result": told} if status == 200 else {"error": told})


@asynccontextmanager
async def asking(place: RouterAddress) -> AsyncIterator[ExtractCall]:
    """What asks a router to read one document: body -> (status, reply or error). Waits out what is overloaded."""
    headers = {"authorization": f"Bearer {place.key}"} if place.key else {}
    if place.private:
        headers["x-spillway-privacy"] = "local-only"
    limits = httpx.Limits(max_connections=place.most_at_once)
    async with httpx.AsyncClient(
        base_url=place.url, headers=headers, limits=limits, timeout=httpx.Timeout(place.timeout_s, connect=10.0)
    ) as client:

        async def ask(body: Mapping[str, Any], key: str = "") -> tuple[int, Any]:
            for left in reversed(range(MOST_TRIES)):
                try:
                    reply = await client.post(PATH, json=body, headers={"idempotency-key": key} if key else None)
                except httpx.HTTPError as error:
                    return 0, {"code": "unreachable", "message": f"{place.url}: {type(error).__name__} {error}".strip()}
                if reply.status_code not in RETRIED or not left:
                    break
                await asyncio.sleep(_wait_s(reply))
            return reply.status_code, _told(reply)

        yield ask


def _wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "1")
    return min(LONGEST_WAIT_S, float(text)) if text.isdecimal() else 1.0


def _told(reply: httpx.Response) -> Any:
    try:
        found = reply.json()
    except ValueError:
        return {"code": "not_spillway", "message": f"HTTP {reply.status_code}, and no JSON: is this a Spillway router?"}
    if reply.status_code == 200:
        return found
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {"code": "error", "message": f"HTTP {reply.status_code}"}
