"""Run by .venv-convert's Python: writes a GGUF with a small SentencePiece vocabulary (argument 1) and prints the token
ids that our rebuilt tokenizer makes of the texts on standard input, as JSON."""

from __future__ import annotations

import collections
import itertools
import json
import sys
from pathlib import Path

import gguf

from spillway_server.convert.worker import header, vocabulary

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "the",
    "mat",
    "and",
    "then",
    "the",
    "other",
    "cats",
    "ran",
    "off",
    "over",
    "a",
    "hill",
    "to",
    "the",
    "thin",
    "theme",
    "of",
    "that",
    "hat",
]
PIECES = 60


def learnt() -> list[str]:
    """Pieces of a byte-pair encoding of WORDS, best first."""
    texts = [["▁", *word] for word in WORDS]
    merges: list[str] = []
    for _ in range(PIECES):
        pairs = collections.Counter(pair for text in texts for pair in itertools.pairwise(text))
        if not pairs:
            break
        (left, right), _count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if left + right not in merges:
            merges.append(left + right)
        texts = [merged(text, left, right) for text in texts]
    return merges


def merged(text: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    for part in text:
        if out and out[-1] == left and part == right:
            out[-1] += part
        else:
            out.append(part)
    return out


def write(path: Path) -> None:
    pieces = learnt()
    letters = ["▁", *sorted({letter for word in WORDS for letter in word}), ".", ","]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *letters]
    kinds = [2, 3, 3, *([6] * 256), *([1] * (len(pieces) + len(letters)))]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces) + len(letters))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    write(place)
    tokenizer = vocabulary.build(header.open_gguf(place))
    texts = json.load(sys.stdin)
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    again = [tokenizer.decode(one, skip_special_tokens=False) for one in ids]
    print(json.dumps({"ids": ids, "texts": again, "with_start": tokenizer.encode("the").ids[0]}))
