"""Whole answers for embeddings: their vectors checked, in the encoding that was asked for, and several joined to one.

Vectors are searched in the answer's bytes, so that an answer that is right as it is goes on byte for byte. Parsing one
of megabytes takes a second; nothing here does so unless the encoding has to be changed or answers have to be joined.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

Encoding = Literal["float", "base64"]

_VECTOR = re.compile(rb'("embedding"\s*+:\s*+)(?:\[([^\]]*+)\]|"([^"]*+)")')
_FLOAT_BYTES = 4
"""Vectors in base64 are little-endian floats of 32 bits, as the OpenAI API defines them."""


def vector_length(raw: bytes) -> int | None:
    """Return how many numbers the first vector of an answer has; None if there is none, or none that can be read."""
    vector = _VECTOR.search(raw)
    if vector is None:
        return None
    _, numbers, encoded = vector.groups()
    if numbers is not None:
        return numbers.count(b",") + 1 if numbers.strip() else 0
    return len(encoded.replace(b"\\/", b"/").rstrip(b"=")) * 3 // 4 // _FLOAT_BYTES


def encoding_of(raw: bytes) -> Encoding | None:
    """Return the encoding of the first vector; None if there is none."""
    vector = _VECTOR.search(raw)
    if vector is None:
        return None
    return "float" if vector[2] is not None else "base64"


def encoded_as(raw: bytes, encoding: Encoding) -> bytes:
    """Return the answer with every vector in this encoding; nothing else changes.

    Raises:
        ValueError: a vector can't be read.
    """
    return _VECTOR.sub(_to_base64 if encoding == "base64" else _to_floats, raw)


def _to_base64(vector: re.Match[bytes]) -> bytes:
    if vector[2] is None:
        return vector[0]
    numbers = orjson.loads(b"[%b]" % vector[2])
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(str(error)) from None
    return b'%b"%b"' % (vector[1], base64.b64encode(packed))


def _to_floats(vector: re.Match[bytes]) -> bytes:
    if vector[3] is None:
        return vector[0]
    packed = base64.b64decode(vector[3].replace(b"\\/", b"/"), validate=True)
    try:
        numbers = struct.unpack(f"<{len(packed) // _FLOAT_BYTES}f", packed)
    except struct.error as error:
        raise ValueError(str(error)) from None
    return vector[1] + orjson.dumps(numbers)


def joined(answers: Sequence[bytes]) -> tuple[bytes, dict[str, Any]]:
    """Return one answer with the vectors of several, in their order, numbered from 0, and with the sum of their usage:
    its bytes, and what it holds beside the vectors.

    Raises:
        ValueError: one of them is no answer for embeddings.
    """
    parsed = [orjson.loads(answer) for answer in answers]
    vectors: list[dict[str, Any]] = []
    for answer in parsed:
        data = answer.get("data")
        if not isinstance(data, list) or not all(isinstance(vector, dict) for vector in data):
            raise ValueError("an answer has no list of vectors")
        start = len(vectors)
        vectors += [{**vector, "index": start + place} for place, vector in enumerate(_in_order(data))]
    usages = [answer.get("usage") for answer in parsed]
    whole = {**parsed[0], "data": vectors}
    whole.pop("usage", None)
    if all(isinstance(usage, dict) for usage in usages):
        whole["usage"] = _sum_of(usages)
    return orjson.dumps(whole), {**whole, "data": []}


def _in_order(data: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the vectors of one answer in the order of their inputs, by `index` where all of them have one."""
    indices = [vector.get("index") for vector in data]
    if sorted(index for index in indices if isinstance(index, int)) != list(range(len(data))):
        return data
    return sorted(data, key=lambda vector: vector["index"])


def _sum_of(usages: Sequence[Any]) -> dict[str, Any]:
    """Add up the numbers of several usages by their names; what is no number stays as the first one says it."""
    total: dict[str, Any] = {}
    for name, value in usages[0].items():
        values = [usage.get(name) for usage in usages]
        if isinstance(value, dict) and all(isinstance(each, dict) for each in values):
            total[name] = _sum_of(values)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            total[name] = sum(each for each in values if isinstance(each, int | float))
        else:
            total[name] = value
    return total
