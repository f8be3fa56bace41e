"""The fault matrix: every way in which an answer breaks off, in every grouping of packets.

A case is a list of packets, the bytes that reach the router in one read each, and how the connection ends. The order of
the cases is fixed, so that two processes give a case the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evidence.streams.protocols import ANSWERS, Answer, early_end, error_events
from spillway_router.testing import openai_wire as wire

FIRST, SECOND = "alpha", "bravo"
"""The word of the answer that breaks, and that of the whole answer of the backend behind it."""

End = Literal[
    "keep",  # the packets end the HTTP body; the connection stays open
    "fin",  # the connection is closed
    "rst",  # the connection is reset
    "hang",  # nothing more comes
]
CHUNKED = wire.http_stream_head()
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One broken (or, as a control, whole) answer. `fault` says in words what is wrong with it; `stream`: whether the
    client asked for a stream."""

    answer: str
    fault: str
    packets: tuple[bytes, ...]
    end: End
    stream: bool = True

    @property
    def name(self) -> str:
        return f"{self.answer}: {self.fault}"


# Groupings: how the parts of a stream become packets. A part is what an upstream writes at once: the head, an event.

Grouping = Callable[[Sequence[bytes]], list[bytes]]


def one_packet(parts: Sequence[bytes]) -> list[bytes]:
    """Join everything, the head too."""
    return [b"".join(parts)]


def by_part(parts: Sequence[bytes]) -> list[bytes]:
    """Send each part on its own."""
    return list(parts)


def in_pairs(parts: Sequence[bytes]) -> list[bytes]:
    """Send the head, then two parts at once."""
    return [*parts[:1], *(b"".join(parts[i : i + 2]) for i in range(1, len(parts), 2))]


def by_byte(parts: Sequence[bytes]) -> list[bytes]:
    """Send the head, then each byte on its own."""
    return [*parts[:1], *(bytes([byte]) for part in parts[1:] for byte in part)]


def last_by_byte(parts: Sequence[bytes]) -> list[bytes]:
    """Send the last two parts byte by byte, those before them at once."""
    return [b"".join(parts[:-2]), *(bytes([byte]) for part in parts[-2:] for byte in part)]


def every_97(parts: Sequence[bytes]) -> list[bytes]:
    """Send the head, then packets that begin and end anywhere."""
    body = b"".join(parts[1:])
    return [*parts[:1], *(body[i : i + 97] for i in range(0, len(body), 97))]


def last_together(parts: Sequence[bytes]) -> list[bytes]:
    """Send each part on its own, but the last three at once: an event, its flaw and the end."""
    return [*parts[:-3], b"".join(parts[-3:])]


@dataclass(frozen=True, slots=True)
class CutStyle:
    """How a stream is cut at every byte: its framing, its grouping and its end. `clean`: the HTTP body ends as if the
    stream were whole. `every`: a cut is parts_sent at each `every`th byte."""

    name: str
    grouping: Grouping
    end: End
    head: bytes = CHUNKED
    clean: bool = False
    every: int = 1


CUTS = (
    CutStyle("closed, an event per packet", by_part, "fin"),
    CutStyle("closed, all in one packet", one_packet, "fin"),
    CutStyle("closed, two events per packet", in_pairs, "fin"),
    CutStyle("closed, the last events byte by byte", last_by_byte, "fin", every=7),
    CutStyle("closed, each byte a packet", by_byte, "fin", every=61),
    CutStyle("reset, an event per packet", by_part, "rst"),
    CutStyle("reset, packets of 97 bytes", every_97, "rst"),
    CutStyle("clean end, an event per packet", by_part, "keep", clean=True),
    CutStyle("clean end, all in one packet", one_packet, "keep", clean=True),
    CutStyle("clean end, two events per packet", in_pairs, "keep", clean=True),
    CutStyle("clean end, the last events byte by byte", last_by_byte, "keep", clean=True, every=7),
    CutStyle("body until the connection closes, an event per packet", by_part, "fin", head=UNTIL_CLOSE),
    CutStyle("body until the connection closes, all in one packet", one_packet, "fin", head=UNTIL_CLOSE),
)
STALLS = (
    CutStyle("nothing more comes, an event per packet", by_part, "hang", every=13),
    CutStyle("nothing more comes, all in one packet", one_packet, "hang", every=37),
)
"""From the first content on: a router that sees none waits longer, and asks the next backend."""
EVERY_BYTE = frozenset({"chat text", "chat tool", "completions text", "responses text", "messages text"})
"""Answers that are cut at every byte. The others are cut at every fourth, and around the ends of their events."""
FLAW_GROUPINGS: tuple[tuple[str, Grouping], ...] = (
    ("an event per packet", by_part),
    ("the last event, the flaw and the end in one packet", last_together),
    ("all in one packet", one_packet),
    ("two events per packet", in_pairs),
    ("the flaw byte by byte", last_by_byte),
    ("packets of 97 bytes", every_97),
)
NOT_UTF8 = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
GARBAGE: tuple[tuple[str, bytes], ...] = (
    ("half an object", b'data: {"id":\n\n'),
    ("bytes that are no UTF-8", NOT_UTF8),
    ("a list", b"data: [1]\n\n"),
    ("a page of HTML", b"<html><body>502 Bad Gateway</body></html>\n\n"),
    ("a page of HTML as an event", b"data: <html><body>502 Bad Gateway</body></html>\n\n"),
    ("half an event", b'data: {"id":"c-1","choi'),
    ("zero bytes", b"\x00" * 8),
    ("nothing but comments", b": ping\n\n" * 3),
)


SCORED = "chat scored"
"""The answer that a router with confidence rules holds back."""


def quick_cases() -> Iterator[Case]:
    """Yield the cases that take no time."""
    for name in ANSWERS:
        if name == SCORED:
            continue
        answer = ANSWERS[name](FIRST)
        yield Case(name, "whole", tuple(_framed(answer.events, CHUNKED)), "keep")
        yield from _cut(answer, CUTS)
        yield from _flawed(answer)
        if answer.whole is not None:
            yield from _without_stream(answer)


def held_cases() -> Iterator[Case]:
    """Yield the cases of an answer that is held back for its confidence."""
    answer = ANSWERS[SCORED](FIRST)
    yield Case(SCORED, "whole", tuple(_framed(answer.events, CHUNKED)), "keep")
    yield from _cut(answer, CUTS)
    yield from _flawed(answer)


def stalled_cases() -> Iterator[Case]:
    """Yield the cases that end only when the router's patience does."""
    for name in ANSWERS:
        answer = ANSWERS[name](FIRST)
        yield from _cut(answer, STALLS)
        for index in range(answer.content, len(answer.events)):
            parts = [CHUNKED, *map(wire.http_chunk, (*answer.events[: index + 1], b": ping\n\n" * 3))]
            yield Case(name, f"only comments after event {index}", tuple(parts), "hang")


HUGE_BYTES, LARGE_BYTES = 9_000_000, 7_000_000
"""Bytes of an event that is larger than the router takes, and of one that is not."""
TINY_EVENTS = 100_000
PACKET_EVENTS = 1_000


def large_cases(tiny: int = TINY_EVENTS) -> Iterator[Case]:
    """Yield answers with events of several MB and with very many tiny ones, whole and cut, of each protocol."""
    for name in sorted(EVERY_BYTE - {"chat tool"}):
        answer = ANSWERS[name](FIRST)
        for size, word in ((HUGE_BYTES, "9 MB"), (LARGE_BYTES, "7 MB")):
            for index in (answer.content, answer.content + 1):
                yield from _large_event(answer, index, size, f"event {index} has {word}")
        yield from _tiny_events(answer, tiny)
        if answer.whole is not None:
            padded = b" " * HUGE_BYTES + wire.dump(answer.whole)
            ends: tuple[tuple[int, End], ...] = ((len(padded), "keep"), (HUGE_BYTES, "fin"), (len(padded) - 1, "rst"))
            for cut, end in ends:
                full = wire.http_answer(200, padded)
                sent = full[: len(full) - len(padded) + cut]
                fault = f"without a stream, 9 MB, {cut} of {len(padded)} bytes"
                yield Case(name, fault, (sent,), end, stream=False)


def _large_event(answer: Answer, index: int, size: int, fault: str) -> Iterator[Case]:
    """Yield streams in which white space in the JSON makes one event large, which changes nothing of what it says."""
    events = list(answer.events)
    events[index] = events[index].replace(b"data: {", b"data: {" + b" " * size, 1)
    whole = _framed(events, CHUNKED)
    yield Case(answer.name, f"{fault}, an event per packet", tuple(whole), "keep")
    yield Case(answer.name, f"{fault}, all in one packet", (b"".join(whole),), "keep")
    inside = b"".join(whole[: index + 1]) + whole[index + 1][: size // 2]
    yield Case(answer.name, f"{fault}, cut inside it", (inside,), "fin")


def _tiny_events(answer: Answer, count: int) -> Iterator[Case]:
    """Yield streams in which very many events without text follow the first content."""
    events, after = answer.events, answer.content + 1
    empty = wire.http_chunk(empty_event(answer))
    begun = b"".join(_framed(events[:after], CHUNKED, b""))
    packets = [begun, *[empty * PACKET_EVENTS] * (count // PACKET_EVENTS)]
    rest = b"".join(_framed(events[after:], CHUNKED)[1:])
    yield Case(answer.name, f"{count} events without text", (*packets, rest), "keep")
    yield Case(answer.name, f"{count} events without text, cut after them", tuple(packets), "fin")
    cut = (*packets, empty[:-9])
    yield Case(answer.name, f"{count} events without text, cut inside one", cut, "rst")


def empty_event(answer: Answer) -> bytes:
    """Return the event with an answer's first content, without its text."""
    return answer.events[answer.content].replace(f"{FIRST} ".encode(), b"")


@dataclass(frozen=True, slots=True)
class FaultMatrix:
    """Cases in their order: from `first_held` on those of held answers, from `first_stalled` on those that take their
    time."""

    cases: tuple[Case, ...]
    first_held: int
    first_stalled: int


def fault_matrix(every: int = 1) -> FaultMatrix:
    """Return the whole matrix, or every `every`th case of it, of those with large events every third at most."""
    quick, held, stalled = (list(yielded())[::every] for yielded in (quick_cases, held_cases, stalled_cases))
    quick += list(large_cases() if every == 1 else large_cases(2 * PACKET_EVENTS))[:: min(every, 4)]
    return FaultMatrix((*quick, *held, *stalled), len(quick), len(quick) + len(held))


def _framed(events: Sequence[bytes], head: bytes, end: bytes = wire.LAST_CHUNK) -> list[bytes]:
    chunked = head is CHUNKED
    parts = [head, *(wire.http_chunk(event) if chunked else event for event in events if event)]
    return [*parts, end] if chunked and end else parts


def _cut(answer: Answer, cuts: Sequence[CutStyle]) -> Iterator[Case]:
    for style in cuts:
        parts = list(answer.events) if style.clean else _framed(answer.events, style.head)[1:]
        first = sum(map(len, parts[: answer.content + 1])) if style.end == "hang" else 0
        thinned = 1 if answer.name in EVERY_BYTE or style.every > 1 else 4
        for at in _positions(parts, style.every * thinned):
            if at < first:
                continue
            sent = _up_to(parts, at)
            parts_sent = _framed(sent, style.head) if style.clean else [style.head, *sent]
            yield Case(answer.name, f"cut at byte {at}, {style.name}", tuple(style.grouping(parts_sent)), style.end)


def _positions(parts: Sequence[bytes], every: int) -> list[int]:
    """Return where to cut: at every `every`th byte, and around the end of each part."""
    total, chosen = 0, set(range(0, sum(map(len, parts)) + 1, every))
    for part in parts:
        chosen |= {total, total + 1, max(0, total + len(part) - 1)}
        total += len(part)
    return sorted({*(at for at in chosen if at <= total), total})


def _up_to(parts: Sequence[bytes], at: int) -> list[bytes]:
    sent = []
    for part in parts:
        if at <= 0:
            break
        sent.append(part[:at])
        at -= len(part)
    return sent


def _flawed(answer: Answer) -> Iterator[Case]:
    """Yield the streams that a flaw follows, after each event from the first with content on (and before it)."""
    flaws = [(f"error ({kind})", events) for kind, events in error_events(answer.protocol).items()]
    flaws += [(text, (data,)) for text, data in GARBAGE]
    name, event = early_end(answer.protocol)
    flaws.append((name, (event,)))
    for index in range(answer.content - 1, len(answer.events)):
        sent = answer.events[: index + 1]
        for text, events in flaws:
            for how, grouping in FLAW_GROUPINGS:
                fault = f"{text} after event {index}, {how}"
                clean = _framed([*sent, *events], CHUNKED)
                yield Case(answer.name, f"{fault}, clean end", tuple(grouping(clean)), "keep")
                if grouping is by_part or grouping is last_together:
                    open_end = _framed([*sent, *events], CHUNKED, b"")
                    yield Case(answer.name, f"{fault}, closed", tuple(grouping(open_end)), "fin")
        bad = [*_framed(sent, CHUNKED, b""), b"zz\r\nno chunk"]
        yield Case(answer.name, f"broken framing after event {index}", tuple(bad), "keep")
        yield Case(answer.name, f"broken framing after event {index}, all in one packet", (b"".join(bad),), "keep")


WHOLE_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"


def _without_stream(answer: Answer) -> Iterator[Case]:
    """Yield the same answer as one JSON body, cut at every byte, and what may stand in its place."""
    body = wire.dump(answer.whole)
    full = wire.http_answer(200, body)
    head = full[: -len(body)]

    def case(fault: str, packets: tuple[bytes, ...], end: End) -> Case:
        return Case(answer.name, f"without a stream, {fault}", packets, end, stream=False)

    yield case("whole", (full,), "keep")
    yield case("whole, each byte a packet", (head, *(bytes([byte]) for byte in body)), "keep")
    for at in range(len(body)):
        sent = body[:at]
        yield case(f"cut at byte {at}, closed", (head + sent,), "fin")
        yield case(f"cut at byte {at}, closed, two packets", (head, sent), "fin")
        yield case(f"cut at byte {at}, reset", (head, sent), "rst")
        chunk = wire.http_chunk(sent) if sent else b""
        yield case(f"cut at byte {at}, chunked, closed", (WHOLE_CHUNKED + chunk,), "fin")
        yield case(f"cut at byte {at}, chunked, clean end", (WHOLE_CHUNKED, chunk + wire.LAST_CHUNK), "keep")
        yield case(f"cut at byte {at}, body until the connection closes", (WHOLE_UNTIL_CLOSE + sent,), "fin")
    for text, data in (*GARBAGE, ("an error", b'{"error": {"message": "died", "code": 500}}'), ("nothing", b"")):
        yield case(f"{text} instead", (wire.http_answer(200, data),), "keep")
