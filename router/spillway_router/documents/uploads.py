"""A document that comes as a file: the whole body of a request, or the member `file` of a JSON body.

A whole body says what it is by its content type and takes the other fields from the query: `?schema=biometry`. Only
types are accepted that a web page of another origin can't send without asking first.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import io
import sys
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from spillway_router.aio.tasks import unless_gone
from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.documents.file_process import MOST_CHARS, read_apart
from spillway_router.documents.files import FileText, LongFileError, UnreadableFileError
from spillway_router.proxy.control.requests import bounded_body, json_body
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.errors import RefusedError, bad_request

FILE_TYPES = frozenset(
    {"application/pdf", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"}
    | {"image/png", "image/jpeg", "image/tiff", "image/webp", "image/bmp"}
)
_QUERY = frozenset({"schema", "parser", "min_confidence", "model", "review"})
_LONGEST_NAME = 120
_SLICE_CHARS = 256 << 10
"""Characters of base64 that are decoded between two turns of the event loop: a multiple of 4."""
READ_AT_ONCE, MOST_WAITING = 3, 16
"""Files that are read at a time, each in a process of its own, and those that are read or may wait for their turn."""
OF_ONE_AT_ONCE, OF_ONE_WAITING = 2, 12
"""How many of each may be of one caller: a small file may take all of its seconds."""


@dataclass(frozen=True, slots=True)
class FileRules:
    """Tesseract's `languages` (() to recognise nothing), the seconds within which a file must be read, and the longest
    text that is taken from it, in characters."""

    languages: tuple[str, ...] = ("eng",)
    limit_s: float = 60.0
    max_chars: int = MOST_CHARS


@dataclass(frozen=True, slots=True)
class Upload:
    """The fields of a request. With a file, `fields` have its text, and `identity` its digest instead."""

    fields: dict[str, Any]
    identity: Mapping[str, Any]
    file: FileText | None = None


@dataclass(slots=True)
class _Line:
    """The files of one caller: `count` are read or wait, and `turns` limits those that are read."""

    turns: asyncio.Semaphore
    count: int = 0


class FileReader:
    """Reads files for one router, a bounded number at a time, of which one caller never has all. `python` runs the
    processes."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._turns = asyncio.Semaphore(READ_AT_ONCE)
        self._waiting = 0
        self._lines: dict[str, _Line] = {}
        """By the ids of the callers' keys; a caller without a file has none."""

    async def read(self, content: bytes, name: str, rules: FileRules, key_id: str = "") -> FileText:
        """Return a file's text. Raise RefusedError if it has none or if too many files wait, of the caller or of
        all."""
        line = self._lines.get(key_id) or _Line(asyncio.Semaphore(OF_ONE_AT_ONCE))
        if self._waiting >= MOST_WAITING or line.count >= OF_ONE_WAITING:
            raise RefusedError(Refusal(503, "overloaded", "Too many files are being read here.", retry_after_s=2.0))
        self._lines[key_id] = line
        self._waiting += 1
        line.count += 1
        try:
            async with line.turns, self._turns:
                return await read_apart(content, name, rules.languages, rules.limit_s, rules.max_chars, self._python)
        except LongFileError as error:
            raise RefusedError(Refusal(413, "request_too_large", f"{error}.", "file")) from None
        except UnreadableFileError as error:
            raise bad_request(f"{error}.", "file") from None
        finally:
            self._waiting -= 1
            line.count -= 1
            if not line.count:
                del self._lines[key_id]


async def read_upload(
    services: Services, request: Request, caller: Caller, reader: FileReader, rules: FileRules
) -> Upload | None:
    """Read the body of a request, and its file if it has one; None if the client leaves before its file is read. Raise
    RefusedError."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in FILE_TYPES:
        content = await bounded_body(services, request, caller, FILE_TYPES)
        if not content:
            raise bad_request("The request body is empty. Send the file as the body.", "file")
        name, fields = "the file", _query_fields(request)
    else:
        fields = await json_body(services, request, caller, services.config().limits.body_bytes)
        file = fields.pop("file", None)
        if file is None:
            return Upload(fields, fields)
        if fields.get("text") is not None or fields.get("messages") is not None:
            raise bad_request("Send the document as one of 'file', 'text' and 'messages'.", "file")
        content, name = await _member(file)
    text = await unless_gone(request.receive, reader.read(content, name, rules, caller.key_id))
    return None if text is None else await _with_file(fields, text, content)


async def _with_file(fields: dict[str, Any], file: FileText, content: bytes) -> Upload:
    identity = {**fields, "file": await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())}
    return Upload({**fields, "text": file.text}, identity, file)


def _query_fields(request: Request) -> dict[str, Any]:
    unknown = sorted(set(request.query_params) - _QUERY)
    if unknown:
        raise bad_request(f"Unknown query parameter {unknown[0]!r}. Use {', '.join(sorted(_QUERY))}.", unknown[0])
    fields: dict[str, Any] = dict(request.query_params)
    if "min_confidence" in fields:
        try:
            fields["min_confidence"] = float(fields["min_confidence"])
        except ValueError:
            raise bad_request("'min_confidence' must be a number from 0 to 1.", "min_confidence") from None
    if "review" in fields:
        if fields["review"] not in ("true", "false"):
            raise bad_request("'review' must be true or false.", "review")
        fields["review"] = fields["review"] == "true"
    return fields


async def _member(file: object) -> tuple[bytes, str]:
    """Return content and name of the member `file`."""
    shape = "'file' must be an object with 'data', the file in base64, and optionally its 'name'."
    if not isinstance(file, dict) or not isinstance(file.get("data"), str) or file.keys() - {"data", "name"}:
        raise bad_request(shape, "file")
    name = file.get("name")
    if name is not None and not isinstance(name, str):
        raise bad_request(shape, "file")
    content = await _from_base64(file["data"])
    if not content:
        raise bad_request("The file is empty.", "file")
    printable = "".join(character for character in (name or "") if character.isprintable())
    return content, printable[:_LONGEST_NAME] or "the file"


async def _from_base64(text: str) -> bytes:
    """Return what base64 stands for. Other work goes on between two slices. Raise RefusedError if it is none."""
    collected = io.BytesIO()
    try:
        for at in range(0, len(text), _SLICE_CHARS):
            piece = text[at : at + _SLICE_CHARS]
            if piece.endswith("=") and at + _SLICE_CHARS < len(text):
                raise binascii.Error("padding before the end")
            collected.write(b64decode(piece, validate=True))
            if len(text) > _SLICE_CHARS:
                await asyncio.sleep(0)
    except (binascii.Error, ValueError):
        raise bad_request("'file.data' is no base64.", "file") from None
    return collected.getvalue()
