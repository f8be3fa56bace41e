"""Decode server-sent events without I/O: bytes in, whole events out, wherever the chunks are cut.

The WHATWG rules that matter here: lines end in LF, CRLF or CR; an empty line ends an event; lines that start with a
colon are comments; several `data` lines join with LF; one space after the colon is dropped. In addition the decoder
gives `raw`, the exact bytes of each event, so that a relay forwards what came instead of writing it anew. It never
returns an event whose end has not come; `pending` says whether there is one, which means truncation at the end of a
stream.
"""

from __future__ import annotations

import re

from spillway_router.core.frozen import fast_frozen

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r(?!\n)|\n\r(?!\n)")
_LARGE = 64 * 1024
_LARGE_EVENT = 256 * 1024
_LF = 0x0A
_OVERLAP = 3
"""Bytes before a chunk with which it can make a blank line."""
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
        """Chunks of a large event after `_tail`. They are joined once, so that a large event takes linear time."""
        self._more_bytes = 0
        self._started = False

    @property
    def pending(self) -> bool:
        """Whether the decoder holds bytes of an unfinished event (blank lines don't count)."""
        return bool(self._more or self._tail.strip())

    def begins_with(self, text: bytes) -> bool:
        """Return whether the unfinished event begins with these bytes."""
        return self._tail.startswith(text)

    @property
    def held_bytes(self) -> int:
        """The bytes of the unfinished event."""
        return len(self._tail) + self._more_bytes

    @property
    def holds_large(self) -> bool:
        """Whether the unfinished event is so large that its end is work for a turn of the event loop of its own."""
        return self._more_bytes > _LARGE_EVENT

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the whole events that this chunk completes. Raises SseError if an event exceeds the size bound."""
        if self._tail:
            if self._more or len(self._tail) > _LARGE:
                return self._feed_large(chunk)
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

    def _feed_large(self, chunk: bytes) -> list[Event]:
        """Take a chunk while a large event is held.

        Only the chunk is searched for the end, with the last bytes before it, and the event is joined once.
        """
        last = self._more[-1] if self._more else self._tail
        if len(last) < _OVERLAP:
            last = b"".join((self._tail, *self._more))
        overlap = last[-_OVERLAP:]
        window = overlap + chunk
        held = len(self._tail) + self._more_bytes
        end = _blank_end(window)
        if end < 0:
            if held + len(chunk) > MAX_EVENT_BYTES:
                raise SseError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
            self._more.append(chunk)
            self._more_bytes += len(chunk)
            return []
        size = held - len(overlap) + end
        if size > MAX_EVENT_BYTES:
            raise SseError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        # An event of several MB is copied as seldom as possible.
        raw = b"".join((self._tail, *self._more, chunk[: max(0, size - held)]))
        raw = raw if len(raw) == size else raw[:size]
        rest = window[end:]
        self._tail = b""
        self._more.clear()
        self._more_bytes = 0
        event = _parse(raw) if self._started else _first(raw)
        self._started = True
        return [event, *self.feed(rest)] if rest else [event]

    def _exact(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        start = 0
        for match in _BLANK.finditer(data, _first_line_end(data)):
            # The CR after another line's LF may be half of a CRLF, so wait for the next byte. Two CRs in a row come
            # from a sender that ends its lines in CR, after which nothing more need come.
            if match.end() == len(data) and data.endswith(b"\n\r"):
                break
            events.append(_parse(data[start : match.end()]))
            start = match.end()
        self._hold(data[start:])
        if events and not self._started:
            self._started = True
            events[0] = _first(events[0].raw)
        return events

    def _hold(self, tail: bytes) -> None:
        if len(tail) > MAX_EVENT_BYTES:
            raise SseError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        self._tail = tail


def _lines(raw: bytes) -> list[bytes]:
    """Return the lines of an event, whatever ends them. A pattern takes several times as long."""
    lines = raw.split(b"\n")
    if b"\r" not in raw:
        return lines
    return [part for line in lines for part in (line[:-1] if line.endswith(b"\r") else line).split(b"\r")]


def _blank_end(data: bytes) -> int:
    """Return where the first blank line ends; -1 without one, and where the next byte may belong to its line end."""
    if b"\r" not in data:
        return _line_feeds_end(data)
    match = _BLANK.search(data, _first_line_end(data))
    if match is None or (match.end() == len(data) and data.endswith(b"\n\r")):
        return -1
    return int(match.end())


def _line_feeds_end(data: bytes) -> int:
    """Return where the first two LFs in a row end, or -1. Finding one byte is many times as fast as finding two."""
    at = data.find(b"\n")
    while at >= 0:
        if data.startswith(b"\n", at + 1):
            return at + 2
        at = data.find(b"\n", at + 1)
    return -1


def _first_line_end(data: bytes) -> int:
    """Return where the first line ends, or the length. Finding a byte is many times as fast as a pattern."""
    feed, carriage = data.find(b"\n"), data.find(b"\r")
    if feed < 0 or carriage < 0:
        feed = max(feed, carriage)
        return len(data) if feed < 0 else feed
    return min(feed, carriage)


def _first(raw: bytes) -> Event:
    """Parse the first event. A byte order mark can only precede it; anywhere else it is part of a field's name. It is
    taken off, because clients that don't know it would miss the event."""
    return _parse(raw.removeprefix(_BOM))


def _is_one_line(raw: bytes) -> bool:
    """Return whether it is what OpenAI-compatible servers nearly always send: exactly one data line, ended by two
    LF."""
    size = len(raw)
    if size < 8 or raw[size - 1] != _LF or raw[size - 2] != _LF:
        return False
    return raw.startswith(b"data: ") and raw.find(b"\n") == size - 2 and b"\r" not in raw


def _parse(raw: bytes) -> Event:
    if _is_one_line(raw):
        return Event(raw, b"", raw[6:-2])
    if raw.startswith(b"data: "):  # one line, most of the time: its data is copied once, as it may have several MB
        end = _first_line_end(raw)
        if not raw[end:].strip(b"\r\n"):
            return Event(raw, b"", raw[6:end])
    name = b""
    parts: list[bytes] = []
    for line in _lines(raw):
        if line.startswith(b"data: "):
            parts.append(line[6:])
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            parts.append(value)  # a space would have been in the way above
        elif field == b"event":
            name = value.removeprefix(b" ")
    data = None if not parts else parts[0] if len(parts) == 1 else b"\n".join(parts)
    return Event(raw, name, data)
