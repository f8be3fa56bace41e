"""Whatever a config.json or a GGUF header says, a plan or an obstacle comes out, never an exception."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_server.obstacle import Obstacle
from spillway_server.planning import gguf_file, recorded
from spillway_server.planning.models import ModelSpec, of_config
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES

SEEDS = [dict(record.config) for name in recorded.names() if (record := recorded.find(name)) is not None]
KEYS = sorted({key for config in SEEDS for key in config})
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def check(spec: ModelSpec | Obstacle) -> None:
    """Plan a model, if it is one."""
    if isinstance(spec, ModelSpec):
        plan = make_plan(PROFILES["t4"], spec, PlanOptions())
        assert isinstance(plan, EnginePlan | Obstacle)


@settings(max_examples=300, derandomize=True)
@given(seed=st.sampled_from(SEEDS), changes=st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=3))
def test_any_configuration(seed: dict[str, Any], changes: dict[str, Any]) -> None:
    config = json.loads(json.dumps(seed | changes))
    check(of_config(config, "some/model"))


def packed_text(text: str) -> bytes:
    raw = text.encode("utf-8", errors="replace")
    return struct.pack("<Q", len(raw)) + raw


def packed(value: Any) -> bytes:
    """Return the type and the bytes of a metadata value."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + packed_text(value)
    items = [packed(item) for item in value]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    alike = [item[4:] for item in items if item[:4] == kind]
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(alike)) + b"".join(alike)


def header(metadata: dict[str, Any], shapes: list[list[int]]) -> bytes:
    tensors = b"".join(
        packed_text(f"blk.{number}.weight") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number % 31, 0)
        for number, shape in enumerate(shapes)
    )
    pairs = b"".join(packed_text(key) + packed(value) for key, value in metadata.items())
    return b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(metadata)) + pairs + tensors


WHOLE: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 2048,
    "tokenizer.ggml.tokens": ["a", "b"],
}
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=5,
)


def read(content: bytes) -> gguf_file.GgufHeader | Obstacle:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "m.gguf")
        file.write_bytes(content)
        return gguf_file.read(file)


@settings(max_examples=200, derandomize=True)
@given(
    changes=st.dictionaries(st.sampled_from([*WHOLE, "llama.attention.key_length"]), VALUES, max_size=3),
    shapes=st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4), max_size=3),
)
def test_any_metadata(changes: dict[str, Any], shapes: list[list[int]]) -> None:
    header_read = read(header(WHOLE | changes, shapes))
    assert isinstance(header_read, gguf_file.GgufHeader)
    check(of_config(header_read.config(), "m", header_read.weight_bytes()))


@settings(max_examples=200, derandomize=True)
@given(
    cut=st.integers(0, 400),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_any_damage(cut: int, edits: list[tuple[int, int]]) -> None:
    content = bytearray(header(WHOLE, [[64, 64], [64]])[: cut or None])
    for place, byte in edits:
        if place < len(content):
            content[place] = byte
    header_read = read(bytes(content))
    if isinstance(header_read, gguf_file.GgufHeader):
        check(of_config(header_read.config(), "m", header_read.weight_bytes()))


def test_arrays_within_arrays_end() -> None:
    deep = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50_000
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + packed_text("k") + deep
    header_read = read(content)
    assert isinstance(header_read, Obstacle)
    assert header_read.fix
