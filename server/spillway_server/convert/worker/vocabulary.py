"""Rebuild the tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json.

Two kinds exist: `gpt2` (byte-level BPE, with the regular expression that splits the text only named in the GGUF) and
`llama` (SentencePiece BPE with byte fallback, whose merges are implied by the scores). The expressions are those of the
models' published tokenizer.json files; an unknown name is refused, since a wrong split changes answers silently.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from spillway_server.convert.worker.header import Header
from spillway_server.convert.worker.report import JobError

_CONTROL, _USER_DEFINED = 3, 4
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _TAIL
_QWEN2 = _WORDS + r"\p{N}" + _TAIL
_SPLITS: dict[str, str] = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}
# These take a whole word from the vocabulary without applying merges.
_WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3", "tekken"}
_GPT2 = {"gpt-2", "gpt2"}
_GIVE_ONE = "Pass --tokenizer DIRECTORY with the tokenizer.json of the original model."


def build(header: Header) -> Tokenizer:
    """Build the tokenizer. Raises `JobError` for an unknown kind or an unknown regular expression."""
    kind = header.value("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_level(header)
    elif kind == "llama":
        tokenizer = _sentencepiece(header)
    else:
        raise JobError(f"the GGUF file's tokenizer is of kind {kind!r}; only gpt2 and llama can be rebuilt.", _GIVE_ONE)
    _add_specials(tokenizer, header)
    return tokenizer


def _byte_level(header: Header) -> Tokenizer:
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in header.needed("tokenizer.ggml.merges")]
    name = str(header.value("tokenizer.ggml.pre") or "")
    model = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, ignore_merges=name in _WHOLE_WORDS
    )
    tokenizer = Tokenizer(model)
    if name in _GPT2:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    elif name in _SPLITS:
        cut = pre_tokenizers.Split(Regex(_SPLITS[name]), behavior="isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, plain])
    else:
        raise JobError(f"the GGUF file splits text by a rule named {name or 'nothing'!r}, which is unknown.", _GIVE_ONE)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(header: Header) -> Tokenizer:
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    scores: list[float] = header.needed("tokenizer.ggml.scores")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = header.value("tokenizer.ggml.unknown_token_id")
    model = models.BPE(
        vocab=vocabulary,
        merges=implied_merges(vocabulary, scores),
        unk_token=None if unknown is None else tokens[int(unknown)],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefix = header.value("tokenizer.ggml.add_space_prefix")
    steps: list[Any] = [] if prefix is False else [normalizers.Prepend("▁")]
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix is not False:
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def implied_merges(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Return the pairs to merge, best score of the merged piece first; SentencePiece merges any pair that forms it."""
    pairs: list[tuple[float, int, int, str, str]] = []
    for piece, index in vocabulary.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                pairs.append((-scores[index], vocabulary[left], vocabulary[right], left, right))
    pairs.sort()
    return [(left, right) for *_, left, right in pairs]


def _add_specials(tokenizer: Tokenizer, header: Header) -> None:
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    types: list[int] = header.value("tokenizer.ggml.token_type") or []
    added = [
        AddedToken(tokens[index], special=kind == _CONTROL, normalized=False)
        for index, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    start = header.value("tokenizer.ggml.bos_token_id")
    adds = header.value("tokenizer.ggml.add_bos_token", header.value("tokenizer.ggml.model") == "llama")
    if adds and start is not None:
        word = tokens[int(start)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{word} $A", pair=f"{word} $A {word} $B", special_tokens=[(word, int(start))]
        )


def stop_ids(header: Header, words: list[str]) -> list[int]:
    """Return the IDs that end an answer: the file's own end tokens, and the given words that are single tokens."""
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    keys = ("eos", "eot", "eom")
    indices = [header.value(f"tokenizer.ggml.{key}_token_id") for key in keys]
    indices += [tokens.index(word) for word in words if word in tokens]
    return sorted({int(index) for index in indices if index is not None})


def write(header: Header, folder: Path, template: str, stops: list[str]) -> None:
    """Write the tokenizer's files and generation_config.json. Raises `JobError`."""
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    build(header).save(str(folder / "tokenizer.json"))

    def word(key: str) -> str | None:
        index = header.value(f"tokenizer.ggml.{key}_token_id")
        return None if index is None else tokens[int(index)]

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(header.needed("{arch}.context_length")),
        "bos_token": word("bos"),
        "eos_token": word("eos"),
        "unk_token": word("unknown"),
        "pad_token": word("padding") or word("eos"),
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    ids = stop_ids(header, stops)
    generation = {"eos_token_id": ids[0] if len(ids) == 1 else ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
