"""Read a file in a process of its own: what a stranger sends is parsed with little memory and time, and without keys.

    python -m spillway_router.documents.file_process NAME LANGUAGES LIMIT_S MAX_CHARS < FILE > JSON

The process has an environment of its own, at most `MEMORY_BYTES` of memory and `LIMIT_S` seconds of CPU time. A parser
that crashes or hangs takes nothing of the router with it. Nor does a small file that unpacks to a large text: what is
longer than `MAX_CHARS` stays in the process, and no more than such a text takes is read from it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from contextlib import suppress

from spillway_router.documents.files import FileText, LongFileError, UnreadableFileError, text_of
from spillway_router.documents.recognition import PROGRAM_PATH, Recogniser

MEMORY_BYTES = 2 * 1024**3
MOST_CHARS = 10_000_000
"""The longest text that any configuration takes."""
_BYTES_PER_CHAR, _BYTES_BESIDE = 32, 64 * 1024
"""Bytes of JSON for a character, which is escaped and may be an unsure word of its own, and for the rest."""
_PART_BYTES = 64 * 1024
_TOO_MUCH = "took more than {limit_s:g} s or {memory} GiB of memory to read, or is damaged; split it or send its text"


async def read_apart(
    content: bytes,
    name: str,
    languages: tuple[str, ...],
    limit_s: float,
    max_chars: int = MOST_CHARS,
    python: str = sys.executable,
) -> FileText:
    """Return the text of a file, read in another process. `languages` () recognises no pictures.

    Raise UnreadableFileError, in particular LongFileError for a text of more than `max_chars`. The process ends with
    the call, also if that is cancelled.
    """
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            python, "-m", __name__, name, "+".join(languages), str(limit_s), str(max_chars),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": PROGRAM_PATH, "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            # A start that is cancelled halfway would leave a process that nobody knows.
            process = await asyncio.shield(starting)
            output = await _answer(process, content, _BYTES_PER_CHAR * max_chars + _BYTES_BESIDE)
    except TimeoutError:
        output = b""
    finally:
        await asyncio.shield(asyncio.create_task(_end(starting)))
    return _reading(output, name, limit_s)


async def _answer(process: asyncio.subprocess.Process, content: bytes, most_bytes: int) -> bytes:
    """Give the process its input, and return what it writes; b"" if that is more than `most_bytes`."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it ended without reading all
        process.stdin.write(content)
        await process.stdin.drain()
        process.stdin.close()
    output = bytearray()
    while part := await process.stdout.read(_PART_BYTES):
        output += part
        if len(output) > most_bytes:
            return b""
    return bytes(output)


async def _end(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    """Kill the process and what it started, and read its pipes to their ends."""
    process = await starting
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


def _reading(output: bytes, name: str, limit_s: float) -> FileText:
    try:
        reply = json.loads(output)
    except ValueError:
        why = _TOO_MUCH.format(limit_s=limit_s, memory=MEMORY_BYTES // 1024**3)
        raise UnreadableFileError(f"{name} {why}") from None
    if "error" in reply:
        raise (LongFileError if reply.get("long") else UnreadableFileError)(reply["error"])
    unsure = tuple((int(start), int(end)) for start, end in reply["unsure"])
    return FileText(reply["text"], recognised=reply["recognised"], unsure=unsure)


def main(name: str, languages: str, limit_s: float, max_chars: int) -> None:
    """Read the file on standard input and write its text, or why there is none, as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    recogniser = Recogniser(tuple(languages.split("+")), limit_s) if languages else None
    try:
        read = text_of(sys.stdin.buffer.read(), name, recogniser)
    except UnreadableFileError as error:
        reply: dict[str, object] = {"error": str(error)}
    else:
        if len(read.text) > max_chars:
            message = f"{name} has {len(read.text)} characters; documents.max_chars allows {max_chars}: split it"
            sys.stdout.write(json.dumps({"error": message, "long": True}))
            return
        reply = {"text": read.text, "recognised": read.recognised, "unsure": read.unsure}
    sys.stdout.write(json.dumps(reply))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
