"""Read the header of a GGUF file: metadata and the names, types and shapes of its tensors. Needs no package.

The layout is that of the format's specification (ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian: magic,
version, counts, key-value pairs, tensor descriptions. A 7B model's header takes about a second, most of it for the
vocabulary.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from spillway_server.obstacle import Obstacle

MAGIC = b"GGUF"
_SCALARS = MappingProxyType(
    {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
)
_STRING, _ARRAY = 8, 9
_LONGEST_TEXT, _LONGEST_ARRAY, _MOST = 16_000_000, 4_000_000, 1_000_000
_DEEPEST_ARRAY = 4
"""Arrays within arrays; no known file has any."""
# Weights per block and bytes per block of each tensor type, from ggml's type table.
BLOCKS: Mapping[int, tuple[str, int, int]] = MappingProxyType(
    {
        0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
        29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its name, its shape (columns first, as GGUF has it), the name of its type, and its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the file says of itself; arrays of metadata are lists."""

    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> str:
        """The architecture's name, empty where the file names none."""
        return str(self.metadata.get("general.architecture") or "")

    def value(self, key: str, otherwise: Any = None) -> Any:
        """Return a metadata value; `{arch}` in the key stands for the architecture."""
        return self.metadata.get(key.replace("{arch}", self.architecture), otherwise)

    def weight_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    def config(self) -> dict[str, Any]:
        """Return the sizes under config.json's names, as far as the file gives them."""
        tokens = self.value("tokenizer.ggml.tokens")
        wanted = {
            "hidden_size": self.value("{arch}.embedding_length"),
            "intermediate_size": self.value("{arch}.feed_forward_length"),
            "num_hidden_layers": self.value("{arch}.block_count"),
            "num_attention_heads": self.value("{arch}.attention.head_count"),
            "num_key_value_heads": self.value("{arch}.attention.head_count_kv"),
            "head_dim": self.value("{arch}.attention.key_length"),
            "max_position_embeddings": self.value("{arch}.context_length"),
            "sliding_window": self.value("{arch}.attention.sliding_window"),
            "num_local_experts": self.value("{arch}.expert_count"),
            "moe_intermediate_size": self.value("{arch}.expert_feed_forward_length"),
            "vocab_size": len(tokens) if isinstance(tokens, list) else None,
        }
        names = {tensor.name for tensor in self.tensors}
        sizes = {key: size for key, value in wanted.items() if (size := _largest(value)) is not None}
        return sizes | {"model_type": self.architecture, "tie_word_embeddings": "output.weight" not in names}


def _largest(value: Any) -> int | None:
    """Return a size, the largest where each layer has its own, None for what is no size."""
    sizes = value if isinstance(value, list) else [value]
    return max((size for size in sizes if isinstance(size, int) and size > 0), default=None)


class _DamagedError(ValueError):
    """The file ends early, or its header has a size that no model has."""


def read(path: Path) -> GgufHeader | Obstacle:
    """Read the header of `path`, or return why it can't be read."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except FileNotFoundError:
        return Obstacle(f"there is no file {path}.", "Name a GGUF file, a directory, a hub name, `demo` or `auto`.")
    except (OSError, _DamagedError, struct.error, UnicodeDecodeError) as error:
        return Obstacle(
            f"{path} can't be read as GGUF: {error}.", "Download the file again and compare its size and digest."
        )


def _header(file: BinaryIO) -> GgufHeader:
    if file.read(4) != MAGIC:
        raise _DamagedError("it does not begin with GGUF")
    version = _number(file, "<I")
    if version not in (2, 3):
        raise _DamagedError(f"its version is {version}, and 2 and 3 are known")
    tensors, pairs = _count(file, _MOST), _count(file, _MOST)
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = _text(file)
        metadata[key] = _value(file, _number(file, "<I"))
    return GgufHeader(metadata, tuple(_tensor(file) for _ in range(tensors)))


def _tensor(file: BinaryIO) -> TensorInfo:
    name = _text(file)
    shape = tuple(_number(file, "<Q") for _ in range(min(_number(file, "<I"), 8)))
    number = _number(file, "<I")
    _number(file, "<Q")  # the offset, which nobody asks for
    kind, each, block = BLOCKS.get(number, (f"type {number}", 1, 4))
    return TensorInfo(name, shape, kind, math.prod(shape) * block // each)


def _value(file: BinaryIO, kind: int, depth: int = 0) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, length = _number(file, "<I"), _count(file, _LONGEST_ARRAY)
        if inner in _SCALARS:
            code = _SCALARS[inner]
            return list(struct.unpack(f"<{length}{code[1]}", _bytes(file, length * struct.calcsize(code))))
        if depth == _DEEPEST_ARRAY:
            raise _DamagedError(f"it has arrays within arrays, more than {_DEEPEST_ARRAY} deep")
        return [_value(file, inner, depth + 1) for _ in range(length)]
    if kind not in _SCALARS:
        raise _DamagedError(f"a value has the unknown type {kind}")
    return _number(file, _SCALARS[kind])


def _text(file: BinaryIO) -> str:
    return _bytes(file, _count(file, _LONGEST_TEXT)).decode("utf-8", errors="replace")


def _count(file: BinaryIO, most: int) -> int:
    number = _number(file, "<Q")
    if number > most:
        raise _DamagedError(f"it names {number} of something that has at most {most}")
    return int(number)


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(code, _bytes(file, struct.calcsize(code)))[0]


def _bytes(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) != length:
        raise _DamagedError("it ends inside its header")
    return content
