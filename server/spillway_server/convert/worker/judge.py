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
    answers, prompts, loss, tokens = [], [], 0.0, 0
    with torch.inference_mode():
        for number, sample in enumerate(samples):
            if number % 8 == 0:
                report_progress(number / len(samples), f"sample {number + 1} of {len(samples)}")
            prompt = tokenizer(prompt_text(tokenizer, sample), add_special_tokens="messages" not in sample)["input_ids"]
            if sample.get("answer"):
                answer = tokenizer(sample["answer"], add_special_tokens=False)["input_ids"]
                loss += _loss(model, prompt, answer)
                tokens += len(answer)
            inputs = torch.tensor([prompt])
            output = model.generate(
                inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=answer_tokens, do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            answers.append(tokenizer.decode(output[0][len(prompt) :], skip_special_tokens=True))
            prompts.append(prompt)
    perplexity = math.exp(loss / tokens) if tokens else None
    return {"perplexity": perplexity, "tokens": tokens, "answers": answers, "prompts": prompts, "dtype": dtype}


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


def _loss(model: Any, prompt: list[int], expected: list[int]) -> float:
    import torch

    logits = model(torch.tensor([prompt + expected])).logits[0, len(prompt) - 1 : -1]
    chosen = torch.log_softmax(logits.float(), dim=-1)[torch.arange(len(expected)), torch.tensor(expected)]
    return -float(chosen.sum())
