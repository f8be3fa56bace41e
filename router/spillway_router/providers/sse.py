"""Decode server-sent events without I/O: bytes in, whole events out, wherever the chunks are cut.

The WHATWG rules that matter here: lines end in LF, CRLF or CR; an empty line ends an event; lines that start with a
colon are comments; several `data` lines join with LF; one space after the colon is dropped. In addition the decoder
gives `raw`, the exact bytes of each event, so that a relay forwards what came instead of writing it anew. It never
returns an event whose end has not come; `pending` says whether there is one, which means truncation at the end of a
stream.
"""

from __future__ import annotations

import re
from dataclasses import replace

from spillway_router.core.frozen import fast_frozen

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r(?!\n)|\n\r(?!\n)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LARGE = 64 * 1024
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream is unusable, because an event is larger than the bound."""


@fast_frozen(frozen=True, slots=True)
class Event:
    """One event: its exact bytes, its name (`event:` field) and its joined data; a comment block has no data."""

    raw: bytes
    name: bytes
    data: bytes | None


class SseDecoder:
    """Turns chunks into whole events. It holds at most one partial event."""

    __slots__ = ("_more", "_more_bytes", "_started", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._more: list[bytes] = []
        """Chunks after `_tail` without a line end. They are joined once, so that a large event takes linear time."""
        self._more_bytes = 0
        self._started = False

    @property
    def pending(self) -> bool:
        """Whether the decoder holds bytes of an unfinished event (blank lines don't count)."""
        return bool(self._more or self._tail.strip())

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the whole events that this chunk completes. Raises SseError if an event exceeds the size bound."""
        if self._tail:
            if self._more or len(self._tail) > _LARGE:
                end = self._end_of_large(chunk)
                if end:
                    event = _parse(b"".join((self._tail, *self._more, chunk[:end])))
                    self._tail = b""
                    self._more.clear()
                    self._more_bytes = 0
                    return [event, *self.feed(chunk[end:])] if end < len(chunk) else [event]
                joined = self._join(chunk)
                if joined is None:
                    return []
                data = joined
            else:
                data = self._tail + chunk
        else:
            data = chunk
        # Nearly every chunk of a stream that is read as fast as it is written is one event of one line.
        if self._started and _is_one_line(data):
            self._tail = b""
            return [Event(data, b"", data[6:-2])]
        # The common case: LF only, one or more whole events. More than two LFs in a row take the exact path, so that
        # the events don't depend on where the chunks are cut.
        if self._started and b"\r" not in data and b"\n\n\n" not in data:
            if data.endswith(b"\n\n"):
                self._tail = b""
                return [_parse(part + b"\n\n") for part in data[:-2].split(b"\n\n")]
            head, sep, tail = data.rpartition(b"\n\n")
            self._hold(tail if sep else data)
            return [_parse(part + b"\n\n") for part in head.split(b"\n\n")] if sep else []
        return self._exact(data)

    def _end_of_large(self, chunk: bytes) -> int:
        """Return where in this chunk the large event ends that is held; 0 if that takes a closer look.

        The event is then joined alone, once: with what follows it would be copied five times.
        """
        end = chunk.find(b"\n\n")
        held_end = (self._more[-1] if self._more else self._tail)[-1:]
        if end < 0 or not self._started or held_end in (b"\n", b"\r") or chunk[end + 2 : end + 3] == b"\n":
            return 0
        return 0 if b"\r" in chunk or b"\r" in self._tail else end + 2

    def _join(self, chunk: bytes) -> bytes | None:
        """Return all that is held and this chunk; None, and hold it too, if it can't end the event."""
        if b"\n" not in chunk and b"\r" not in chunk and self._tail[-1:] not in (b"\n", b"\r"):
            self._more.append(chunk)
            self._more_bytes += len(chunk)
            if len(self._tail) + self._more_bytes > MAX_EVENT_BYTES:
                raise SseError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
            return None
        data = b"".join((self._tail, *self._more, chunk))
        self._more.clear()
        self._more_bytes = 0
        return data

    def _exact(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        start = 0
        for match in _BLANK.finditer(data):
            # The CR after another line's LF may be half of a CRLF, so wait for the next byte. Two CRs in a row come
            # from a sender that ends its lines in CR, after which nothing more need come.
            if match.end() == len(data) and data.endswith(b"\n\r"):
                break
            events.append(_parse(data[start : match.end()]))
            start = match.end()
        self._hold(data[start:])
        if events and not self._started:
            self._started = True
            # A byte order mark can only precede the first event; anywhere else it is part of a field's name.
            first = events[0]
            if first.raw.startswith(_BOM):
                events[0] = replace(_parse(first.raw[len(_BOM) :]), raw=first.raw)
        return events

    def _hold(self, tail: bytes) -> None:
        if len(tail) > MAX_EVENT_BYTES:
            raise SseError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        self._tail = tail


def _is_one_line(raw: bytes) -> bool:
    """Return whether it is what OpenAI-compatible servers nearly always send: exactly one data line, ended by two
    LF."""
    return raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and raw.endswith(b"\n") and b"\r" not in raw


def _parse(raw: bytes) -> Event:
    if _is_one_line(raw):
        return Event(raw, b"", raw[6:-2])
    name = b""
    parts: list[bytes] = []
    for line in _LINE_END.split(raw):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            parts.append(value)
        elif field == b"event":
            name = value
    return Event(raw, name, b"\n".join(parts) if parts else None)
