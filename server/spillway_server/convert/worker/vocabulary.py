"""Rebuild the tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json.

Three kinds exist: `gpt2` (byte-level BPE, with the rule that splits the text only named in the GGUF, see formats.py),
`llama` (SentencePiece BPE with byte fallback, whose merges are implied by the scores), and `t5` (SentencePiece
Unigram).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from spillway_server.convert.formats import SPLIT_RULES, TOKENIZERS, SplitRule
from spillway_server.convert.worker.header import Header
from spillway_server.convert.worker.report import JobError

_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
_GIVE_ONE = "Pass --tokenizer DIRECTORY with the tokenizer.json of the original model."


def build(header: Header) -> Tokenizer:
    """Build the tokenizer. Raises `JobError` for an unknown kind or an unknown regular expression."""
    kind = header.value("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_level(header)
    elif kind == "llama":
        tokenizer = _sentencepiece(header)
    elif kind == "t5":
        tokenizer = _unigram(header)
    else:
        raise JobError(
            f"the GGUF file's tokenizer is of kind {kind!r}; {', '.join(TOKENIZERS)} can be rebuilt.", _GIVE_ONE
        )
    _add_specials(tokenizer, header)
    return tokenizer


def _byte_level(header: Header) -> Tokenizer:
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in header.needed("tokenizer.ggml.merges")]
    name = str(header.value("tokenizer.ggml.pre") or "")
    rule = SPLIT_RULES.get(name)
    if rule is None:
        raise JobError(f"the GGUF file splits text by a rule named {name or 'nothing'!r}, which is unknown.", _GIVE_ONE)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.whole_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts(rule))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def cuts(rule: SplitRule) -> list[Any]:
    """Return the steps of a split rule."""
    steps: list[Any] = [pre_tokenizers.Split(Regex(text), behavior="isolated") for text in rule.expressions]
    if rule.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    return [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.gpt2)]


def _unigram(header: Header) -> Tokenizer:
    tokens: list[str] = header.needed("tokenizer.ggml.tokens")
    scores: list[float] = header.needed("tokenizer.ggml.scores")
    types: list[int] = header.value("tokenizer.ggml.token_type") or []
    unknown = int(header.value("tokenizer.ggml.unknown_token_id") or 0)
    has_bytes = _BYTE in types
    tokenizer = Tokenizer(models.Unigram(list(zip(tokens, map(float, scores), strict=True)), unknown, has_bytes))
    table = header.value("tokenizer.ggml.precompiled_charsmap")
    steps: list[Any] = [normalizers.Precompiled(bytes(table))] if table else []
    if header.value("tokenizer.ggml.remove_extra_whitespaces", True):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    prefix = header.value("tokenizer.ggml.add_space_prefix", True)
    scheme = "always" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    back: list[Any] = [decoders.ByteFallback(), decoders.Fuse()] if has_bytes else []
    tokenizer.decoder = decoders.Sequence([*back, decoders.Metaspace(replacement="▁", prepend_scheme=scheme)])
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
        **({"chat_template": template} if template else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    ids = stop_ids(header, stops)
    generation = {"eos_token_id": ids[0] if len(ids) == 1 else ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
