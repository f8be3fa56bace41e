"""Judge a checkpoint on a gate's samples: the perplexity of the known answers, and the model's greedy answers.

Perplexity = exp(mean of -ln p(token)) over the tokens of the known answers, each given its prompt.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from spillway_server.convert.worker import sizes
from spillway_server.convert.worker.quantise import prompt_text
from spillway_server.convert.worker.report import JobError, report_progress
from spillway_server.convert.worker.threads import fit_threads

_BATCH = 16
_WEIGHTS_AND_WORK = 1.15
"""Memory relative to the weights' own: one more layer while a packed checkpoint is unpacked, activations, logits."""


def judge(folder: Path, samples: list[dict[str, Any]], answer_tokens: int) -> dict[str, Any]:
    """Return the figures of one checkpoint: `perplexity` (None without known answers), the number of `tokens` behind
    it, greedy `answers`, `prompts` (token IDs, so that another engine gets exactly the same), `dtype` of the
    arithmetic.

    Raises `JobError` where the memory is too small.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = fitting_dtype(sizes.parameters(sizes.shapes(folder)), sizes.available_bytes())
    report_progress(0.0, f"loading in {dtype}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()
    fit_threads(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    prompts = [
        tokenizer(prompt_text(tokenizer, sample), add_special_tokens=_is_plain(tokenizer, sample))["input_ids"]
        for sample in samples
    ]
    answers: list[str] = [""] * len(samples)
    loss, tokens, done = 0.0, 0, 0
    # Prompts of about one length go together: what is padded is computed in vain.
    order = sorted(range(len(samples)), key=lambda number: len(prompts[number]))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            report_progress(done / len(samples), f"sample {done + 1} of {len(samples)}")
            with_answers = [number for number in batch if samples[number].get("answer")]
            pairs = [
                (prompts[number], tokenizer(samples[number]["answer"], add_special_tokens=False)["input_ids"])
                for number in with_answers
            ]
            loss += _loss(model, pairs, tokenizer.pad_token_id)
            tokens += sum(len(answer) for _, answer in pairs)
            texts = _generated(model, tokenizer, [prompts[number] for number in batch], answer_tokens)
            for number, text in zip(batch, texts, strict=True):
                answers[number] = text
            done += len(batch)
    perplexity = math.exp(loss / tokens) if tokens else None
    return {"perplexity": perplexity, "tokens": tokens, "answers": answers, "prompts": prompts, "dtype": dtype}


def _is_plain(tokenizer: Any, sample: dict[str, Any]) -> bool:
    """Return whether the prompt is text as it is, to which the tokenizer adds its own start; templates write theirs."""
    return "messages" not in sample or not tokenizer.chat_template


def _generated(model: Any, tokenizer: Any, prompts: list[list[int]], answer_tokens: int) -> list[str]:
    """Return greedy answers; prompts are filled up on the left, so that answers begin at one place."""
    import torch

    longest = max(len(prompt) for prompt in prompts)
    fill = [longest - len(prompt) for prompt in prompts]
    inputs = torch.tensor(
        [[tokenizer.pad_token_id] * left + prompt for left, prompt in zip(fill, prompts, strict=True)]
    )
    mask = torch.tensor([[0] * left + [1] * len(prompt) for left, prompt in zip(fill, prompts, strict=True)])
    output = model.generate(
        inputs, attention_mask=mask, max_new_tokens=answer_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return [tokenizer.decode(row[longest:], skip_special_tokens=True) for row in output]


def fitting_dtype(parameters: int, available: int) -> str:
    """Return float32, which is exact next to llama.cpp, where the memory (bytes) holds it with some room, else
    bfloat16.

    Raises `JobError` where the memory holds neither.
    """
    room = available / _WEIGHTS_AND_WORK
    if 4 * parameters <= room:
        return "float32"
    if 2 * parameters <= room:
        return "bfloat16"
    raise JobError(
        f"judging {parameters / 1e9:.1f} billion weights takes {2 * parameters * _WEIGHTS_AND_WORK / 1e9:.1f} GB of "
        f"memory, {available / 1e9:.1f} GB are free.",
        "Run again on a larger machine and take the .work folder along: finished steps are kept.",
    )


def _loss(model: Any, pairs: list[tuple[list[int], list[int]]], pad: int) -> float:
    """Return the sum of -ln p over the answers' tokens; sequences are filled up on the right, which changes nothing."""
    import torch

    if not pairs:
        return 0.0
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    rows = [prompt + answer for prompt, answer in pairs]
    inputs = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    logits = model(inputs, attention_mask=mask).logits
    total = 0.0
    for index, (prompt, answer) in enumerate(pairs):
        part = torch.log_softmax(logits[index, len(prompt) - 1 : len(prompt) + len(answer) - 1].float(), dim=-1)
        total -= float(part[torch.arange(len(answer)), torch.tensor(answer)].sum())
    return total
