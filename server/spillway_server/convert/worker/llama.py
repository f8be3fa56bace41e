"""Judge a GGUF file with llama.cpp. The Python that has llama-cpp-python runs this file, which needs nothing else.

Usage: llama.py JOB.json RESULT.json with job = {"gguf", "prompts" (token ids), "answers" (texts), "answer_tokens"}.
The figures have the same names as judge.py's.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any


def open_model(path: str, context: int) -> Any:
    """Open the model on the CPU with llama.cpp's plain kernels.

    Repacked weights crash on processors with AMX (ggml-org/llama.cpp issue 20824), so they are switched off.
    """
    import llama_cpp
    from llama_cpp import llama_cpp as lib

    stock = lib.llama_model_default_params

    def plain() -> Any:
        parameters = stock()
        if hasattr(parameters, "use_extra_bufts"):
            parameters.use_extra_bufts = False
        return parameters

    lib.llama_model_default_params = plain
    return llama_cpp.Llama(model_path=path, n_ctx=context, logits_all=True, verbose=False)


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Return the perplexity of the known answers, and greedy answers, token by token from the same prompts."""
    import numpy as np

    longest = max(len(prompt) for prompt in job["prompts"])
    model = open_model(job["gguf"], longest + job["answer_tokens"] + 512)
    ends = {model.token_eos()}
    answers, loss, tokens = [], 0.0, 0
    for prompt, answer in zip(job["prompts"], job["answers"], strict=True):
        if answer:
            ids = model.tokenize(answer.encode(), add_bos=False, special=False)
            model.reset()
            model.eval(prompt + ids)
            rows = np.asarray(model.scores[len(prompt) - 1 : len(prompt) + len(ids) - 1], dtype=np.float64)
            rows = rows - rows.max(axis=1, keepdims=True)
            chosen = rows[np.arange(len(ids)), ids] - np.log(np.exp(rows).sum(axis=1))
            loss, tokens = loss - float(chosen.sum()), tokens + len(ids)
        generated: list[int] = []
        for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0, reset=True):
            if token in ends or len(generated) >= job["answer_tokens"]:
                break
            generated.append(token)
        answers.append(model.detokenize(generated).decode(errors="replace"))
    return {"perplexity": math.exp(loss / tokens) if tokens else None, "tokens": tokens, "answers": answers}


if __name__ == "__main__":
    figures = judge(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(figures))
