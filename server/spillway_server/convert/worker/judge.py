"""How good a checkpoint is on a gate's samples: perplexity of the answers and the greedy answers themselves.

Perplexity = exp(mean of -ln p(token)) over the tokens of the known answers, each given its prompt.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from spillway_server.convert.worker.quantise import prompt_text
from spillway_server.convert.worker.report import tell
from spillway_server.convert.worker.threads import fit_threads


def judge(folder: Path, samples: list[dict[str, Any]], answer_tokens: int) -> dict[str, Any]:
    """Figures of one checkpoint: `perplexity` (None without known answers), `tokens` behind it, `answers` (greedy),
    `prompts` (token ids, so that another engine can be asked the very same)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    fit_threads(model)
    answers, prompts, loss, tokens = [], [], 0.0, 0
    with torch.inference_mode():
        for number, sample in enumerate(samples):
            if number % 8 == 0:
                tell(number / len(samples), f"sample {number + 1} of {len(samples)}")
            prompt = tokenizer(prompt_text(tokenizer, sample), add_special_tokens="messages" not in sample)["input_ids"]
            if sample.get("answer"):
                known = tokenizer(sample["answer"], add_special_tokens=False)["input_ids"]
                loss += _loss(model, prompt, known)
                tokens += len(known)
            given = torch.tensor([prompt])
            made = model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=answer_tokens, do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            answers.append(tokenizer.decode(made[0][len(prompt) :], skip_special_tokens=True))
            prompts.append(prompt)
    perplexity = math.exp(loss / tokens) if tokens else None
    return {"perplexity": perplexity, "tokens": tokens, "answers": answers, "prompts": prompts}


def _loss(model: Any, prompt: list[int], known: list[int]) -> float:
    import torch

    logits = model(torch.tensor([prompt + known])).logits[0, len(prompt) - 1 : -1]
    chosen = torch.log_softmax(logits.float(), dim=-1)[torch.arange(len(known)), torch.tensor(known)]
    return -float(chosen.sum())
