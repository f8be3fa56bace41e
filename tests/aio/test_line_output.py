"""Lines for a reader that pauses: nobody waits for it, and what it missed is counted."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

from spillway_router.aio.line_output import LineHandler, LineOutput

WAIT_S = 20


def everything(descriptor: int) -> bytes:
    """Read a pipe to its end."""
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts)


def test_lines_are_written_in_order() -> None:
    reader, writer = os.pipe()
    with LineOutput(writer) as output:
        for number in range(100):
            output.put(f"line {number}")
    os.close(writer)
    assert everything(reader).split(b"\n")[:-1] == [b"line %d" % number for number in range(100)]


def test_a_reader_that_pauses_keeps_nobody_and_learns_how_much_it_missed() -> None:
    reader, writer = os.pipe()
    output = LineOutput(writer, most_lines=50)
    for number in range(5000):  # far more than the pipe holds
        output.put(f"{number} {'x' * 1000}")
    assert output.dropped > 4000
    first = os.read(reader, 1 << 20)
    while b"lines were dropped here" not in first:
        first += os.read(reader, 1 << 20)
    dropped, tries = -1, 0
    while output.dropped != dropped:  # until there is room for it
        first += os.read(reader, 1 << 20) if tries else b""
        dropped, tries = output.dropped, tries + 1
        output.put("the last one")
    with ThreadPoolExecutor(1) as reading:  # what waits may be more than the pipe holds
        rest = reading.submit(everything, reader)
        output.close(WAIT_S)
        os.close(writer)
    lines = (first + rest.result()).decode().splitlines()
    reported = sum(int(line.split()[0]) for line in lines if line.endswith("nobody read them in time"))
    assert reported == output.dropped
    assert sum(not line.endswith("nobody read them in time") for line in lines) == 5000 + tries - output.dropped
    assert lines[-1] == "the last one"


def test_few_bytes_wait_however_long_the_lines_are() -> None:
    reader, writer = os.pipe()
    output = LineOutput(writer, most_bytes=100_000)
    for _ in range(20):
        output.put("y" * 60_000)
    assert output.dropped >= 15
    os.close(reader)
    output.close(WAIT_S)
    os.close(writer)


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    output = LineOutput(writer)
    output.put("nobody")
    output.close(WAIT_S)
    os.close(writer)
    assert output.dropped == 1


def test_a_descriptor_that_does_not_block_gets_every_line() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with LineOutput(writer) as output:
        for _ in range(200):  # more than the pipe holds
            output.put("z" * 1000)
        text = b""
        while text.count(b"\n") < 200:
            text += os.read(reader, 1 << 16)
    assert output.dropped == 0
    os.close(writer)
    os.close(reader)


def test_a_log_record_becomes_a_line_and_a_faulty_one_as_well() -> None:
    reader, writer = os.pipe()
    with LineOutput(writer) as output:
        handler = LineHandler(output)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        for arguments in (("x",), ("x", "y")):
            handler.handle(logging.LogRecord("n", logging.WARNING, "", 1, "hello %s", arguments, None))
    os.close(writer)
    lines = everything(reader).decode().splitlines()
    assert lines[0] == "WARNING hello x"
    assert lines[1].startswith("a log line could not be formatted")
