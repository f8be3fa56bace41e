"""Run by .venv-convert's Python: `real_size.py OUT.gguf [SHAPE]` writes random weights in the sizes of a real model.

What a conversion of it takes in time, memory and disk is what the real one takes; its answers mean nothing. The
vocabulary has the real one's size and way of cutting text, its words are made up. docs/convert.md has the figures.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes as the model's published config.json has them; `special`: id of its first control token."""

    architecture: str
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    words: int
    special: int
    pre_tokenizer: str
    rope_base: float
    context: int
    tied: bool


SHAPES = {
    "llama-3.2-1b": Shape(
        architecture="llama",
        hidden=2048,
        feed_forward=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        words=128_256,
        special=128_000,
        pre_tokenizer="llama-bpe",
        rope_base=500_000.0,
        context=131_072,
        tied=True,
    ),
    "qwen2.5-3b": Shape(
        architecture="qwen2",
        hidden=2048,
        feed_forward=11_008,
        layers=36,
        heads=16,
        kv_heads=2,
        head_dim=128,
        words=151_936,
        special=151_643,
        pre_tokenizer="qwen2",
        rope_base=1_000_000.0,
        context=32_768,
        tied=True,
    ),
    "qwen2.5-7b": Shape(
        architecture="qwen2",
        hidden=3584,
        feed_forward=18_944,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        words=152_064,
        special=151_643,
        pre_tokenizer="qwen2",
        rope_base=1_000_000.0,
        context=32_768,
        tied=False,
    ),
}
_TURNS = (
    "{%- for message in messages -%}{{- '<|s2|>' + message['role'] + '\\n' + message['content'] + '<|s1|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|s2|>assistant\\n' -}}{%- endif -%}"
)


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in a byte-level vocabulary (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = itertools.count(256)
    return [chr(byte if byte in plain else next(hidden)) for byte in range(256)]


def vocabulary(shape: Shape) -> tuple[list[str], list[str], list[int]]:
    """Tokens, merges and token kinds: all bytes, then pairs and triples of letters, then control tokens."""
    letters = byte_letters()
    pairs = ((a, b) for a in letters for b in letters)
    # English prompts meet the merges of small letters first.
    usual = [letter for letter in letters if letter.isascii() and letter.isalpha()]
    triples = ((a + b, c) for a in usual for b in usual for c in letters)
    merges = list(itertools.islice(itertools.chain(pairs, triples), shape.special - 256))
    plain = [*letters, *(left + right for left, right in merges)]
    control = [f"<|s{number}|>" for number in range(shape.words - shape.special)]
    kinds = [1] * len(plain) + [3] * len(control)
    return [*plain, *control], [f"{left} {right}" for left, right in merges], kinds


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes (rows, columns) in file order."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (shape.words, shape.hidden)
    for layer in range(shape.layers):
        rows = {"attn_q": attention, "attn_k": kv, "attn_v": kv}
        yield f"blk.{layer}.attn_norm.weight", (shape.hidden,)
        for name, out in rows.items():
            yield f"blk.{layer}.{name}.weight", (out, shape.hidden)
            if shape.architecture == "qwen2":
                yield f"blk.{layer}.{name}.bias", (out,)
        yield f"blk.{layer}.attn_output.weight", (shape.hidden, attention)
        yield f"blk.{layer}.ffn_norm.weight", (shape.hidden,)
        yield f"blk.{layer}.ffn_gate.weight", (shape.feed_forward, shape.hidden)
        yield f"blk.{layer}.ffn_up.weight", (shape.feed_forward, shape.hidden)
        yield f"blk.{layer}.ffn_down.weight", (shape.hidden, shape.feed_forward)
    yield "output_norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "output.weight", (shape.words, shape.hidden)


def values(name: str, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Norms near one, biases near zero, matrices that keep the size of what passes through them."""
    values = rng.standard_normal(size, dtype=np.float32)
    if len(size) == 1:
        return 0.02 * values + (0.0 if name.endswith("bias") else 1.0)
    values *= 1 / math.sqrt(size[1])
    return values.astype(np.float16)


def write(path: Path, shape: Shape) -> None:
    """Write the file, one tensor in memory at a time."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name("random weights")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6 if shape.architecture == "qwen2" else 1e-5)
    tokens, merges, kinds = vocabulary(shape)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(shape.special)
    writer.add_eos_token_id(shape.special + 1)
    writer.add_chat_template(_TURNS)
    planned = list(tensors(shape))
    for name, size in planned:
        kind = np.dtype(np.float16 if len(size) > 1 else np.float32)
        writer.add_tensor_info(name, size, kind, math.prod(size) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (name, size) in enumerate(planned):
        writer.write_tensor_data(values(name, size, np.random.default_rng(number)))
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), SHAPES[sys.argv[2] if len(sys.argv) > 2 else "llama-3.2-1b"])
