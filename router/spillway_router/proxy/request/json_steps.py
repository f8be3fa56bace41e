"""Parse a JSON text of many megabytes in small steps, so that the event loop serves everybody else meanwhile.

orjson parses a text in one go: 14 MB of log probabilities take it 0.1 s. Here the text is cut between the members of
containers, and a container of more than PIECE bytes is put together from pieces:

1. One pass over the brackets knows the containers that are open, outermost first.
2. Where PIECE bytes have no bracket but those of small containers, all members up to the next comma are parsed as a
   container of their own, and added to the open one.
3. So are the members since the last cut where an inner container ends, once they are PIECE bytes.
4. Where an inner container ends that was cut itself, the members before it are parsed with a mark in its place, and
   the mark is replaced.

Whatever is not as expected is left to orjson, which parses it or says what is wrong. The result is the same in every
case.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import orjson

from spillway_router.proxy.request.body import STRING

PIECE = 128 << 10
"""Bytes from which members are parsed: some 2 ms."""
STEP_BRACKETS = 2_000
"""Most brackets that are passed between two steps, which takes a millisecond."""
MOST_OPEN = 100
"""Most containers that are open; a text that nests deeper is parsed in one go."""
_MARK = secrets.token_hex(16)
"""Stands for a container that was cut. Nobody can guess it, so that no other string is taken for one."""


def _members(levels: int) -> bytes:
    """Return the pattern of any members of a container, among them containers of so many levels."""
    inner = rb"" if levels == 0 else rb"|\[" + _members(levels - 1) + rb"\]|\{" + _members(levels - 1) + rb"\}"
    return rb'(?:[^"\[\]{}]++|' + STRING + inner + rb")*+"


_MEMBERS = re.compile(_members(3) + rb"([\[\]{}])?", re.DOTALL)
"""One match passes over all that is small: a token's log probabilities have three levels."""
_NEXT = re.compile(rb'[^"\[\]{},]*+(' + STRING + rb"|[\[\]{},])", re.DOTALL)
_AFTER = re.compile(rb"[ \t\r\n]*+(,?)")
_QUOTE, _COMMA = b'",'
_CLOSES = {0x5B: b"]", 0x7B: b"}"}


class _UnexpectedError(Exception):
    """The text is not what this reader expects: it is malformed, or nests too deep."""


@dataclass(slots=True)
class _Container:
    """A container that is open: what was parsed of it, and where its members begin that were not."""

    opening: int
    start: int
    cut: int
    value: Any = None
    """None until something was parsed."""
    expects_member: bool = False
    """A comma came last, after which a container can't end."""

    def add(self, text: bytes, end: int) -> None:
        """Add the members text[cut:end]."""
        self._add(orjson.loads(b"%c%b%b" % (self.opening, text[self.cut : end], _CLOSES[self.opening])))

    def cut_at_comma(self, text: bytes, at: int) -> None:
        """Add the members up to the comma at `at`, of which there must be one."""
        if not text[self.cut : at].strip():
            raise _UnexpectedError
        self.add(text, at)
        self.cut = at + 1
        self.expects_member = True

    def add_cut(self, text: bytes, end: int, value: Any) -> None:
        """Add the members text[cut:end] and, behind them, the value of a container that was cut."""
        marked = b'%c%b"%b"%b' % (self.opening, text[self.cut : end], _MARK.encode(), _CLOSES[self.opening])
        members = orjson.loads(marked)
        if type(members) is list:
            members[-1] = value
        else:
            members[next(key for key, member in members.items() if member == _MARK)] = value
        self._add(members)

    def _add(self, members: Any) -> None:
        if self.value is None:
            self.value = members
        elif type(members) is list:
            self.value += members
        else:
            self.value.update(members)

    def go_on(self, text: bytes, at: int) -> None:
        """Begin the next members behind the comma at `at`, unless the container ends there."""
        match = _AFTER.match(text, at)
        assert match is not None
        self.cut = match.end()
        self.expects_member = bool(match.group(1))
        if not self.expects_member and text[self.cut : self.cut + 1] not in (b"]", b"}"):
            raise _UnexpectedError


def load_in_steps(text: bytes) -> Generator[None, None, Any]:
    """Return what orjson.loads returns for the text, or raise orjson.JSONDecodeError as it does. The caller may do
    something else between two steps."""
    try:
        return (yield from _load(text))
    except (_UnexpectedError, orjson.JSONDecodeError):
        return orjson.loads(text)


def _load(text: bytes) -> Generator[None, None, Any]:
    opened: list[_Container] = []
    at = passed = 0
    while True:
        match = _MEMBERS.match(text, at, at + PIECE)
        if match is None or match.group(1) is None:
            match = _NEXT.match(text, at if match is None else match.end())
        if match is None or (not opened and text[at : match.start(1)].strip()):
            raise _UnexpectedError
        char, at = text[match.start(1)], match.end()
        if char == _QUOTE:
            continue
        if char == _COMMA and opened:
            opened[-1].cut_at_comma(text, at - 1)
            yield
        elif char in _CLOSES:
            if len(opened) == MOST_OPEN:
                raise _UnexpectedError
            opened.append(_Container(char, at, at))
        elif opened and text[at - 1 : at] == _CLOSES[opened[-1].opening]:
            inner = opened.pop()
            if not opened:
                if text[at:].strip():
                    raise _UnexpectedError
                return _value(inner, text, at)
            if _end(inner, opened[-1], text, at):
                yield
        else:
            raise _UnexpectedError
        passed += 1
        if passed % STEP_BRACKETS == 0:
            yield


def _value(container: _Container, text: bytes, end: int) -> Any:
    """Return the value of a container, which ends at `end`."""
    if container.value is None or text[container.cut : end - 1].strip():
        container.add(text, end - 1)
    elif container.expects_member:
        raise _UnexpectedError
    return container.value


def _end(inner: _Container, outer: _Container, text: bytes, end: int) -> bool:
    """Take the end of an inner container; return whether something was parsed."""
    if inner.value is not None or end - inner.start > PIECE:
        outer.add_cut(text, inner.start - 1, _value(inner, text, end))
    elif end - outer.cut >= PIECE:
        outer.add(text, end)
    else:
        return False
    outer.go_on(text, end)
    return True
