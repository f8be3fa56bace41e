"""Train the demo model from scratch: `python -m spillway_server.demo_model.train --out FOLDER`.

A Llama of about 1.9 million parameters learns to copy labelled numerals into JSON; the loss counts on
the answer only. The schedule follows the share of the time budget spent, so a busy machine gets fewer
steps and the same shape of learning rate. Every `--checkpoint-minutes` the averaged weights and their
exact-match share are written, so an early stop still leaves a usable model. Training needs the `train` extra, two
CPU cores and 40 minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from spillway_server.demo_model.documents import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    canonical_json,
    exact,
    generate,
    prompt,
)
from spillway_server.demo_model.tokenizer import (
    END_OF_TEXT,
    MAX_POSITIONS,
    TURN_END,
    VOCABULARY,
    build_tokenizer,
    chat_prompt,
    save_tokenizer,
)

# Shares of the noises once the model can copy; before that (first tenth of the budget) everything is clean.
MIXTURE = {"clean": 0.56, "light": 0.26, "heavy": 0.14, "truncated": 0.04}
# An engine that forces a tool call forces its opening and leaves the arguments to the model. A few rows carry such
# openings (no loss up to the tool's name), so that the arguments come out as well as a plain answer.
TOOL_SHARE = 0.08
TOOL_FORMS = (
    ('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>"),
    ('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"),
    ('[{"name": "', '", "parameters": ', "}]"),
)
TOOL_NAMES = ("save_biometry", "record_biometry", "extract_report", "store_values", "submit", "get_biometry")
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Plan:
    """`minutes` of wall time, `batch` documents a step, peak learning rate `rate`, decay `average`."""

    out: Path
    start: Path | None
    minutes: float
    batch: int
    rate: float
    average: float
    checkpoint_minutes: float
    evaluate_documents: int
    seed: int


def build_model(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Build the untrained model. All matrix sizes are multiples of 128, so that 4-bit groups of 128 fit as well."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 3,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to(dtype)


class Batches:
    """Endless training batches of documents of similar length, padded on the right."""

    def __init__(self, tokenizer: Tokenizer, batch: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._batch = batch
        self._rng = random.Random(seed)  # noqa: S311 - reproducible training data, no secret
        self._pad = tokenizer.token_to_id(END_OF_TEXT)
        self._ready: list[list[tuple[list[int], int]]] = []

    def draw(self, noisy: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input IDs and labels, both (batch, length); labels are `IGNORED` outside the answer."""
        if not self._ready:
            self._ready = self._fill(noisy)
        rows = self._ready.pop()
        length = max(len(ids) for ids, _ in rows)
        tokens = torch.full((len(rows), length), self._pad)
        labels = torch.full((len(rows), length), IGNORED)
        for index, (ids, start) in enumerate(rows):
            row = torch.tensor(ids)
            tokens[index, : len(ids)] = row
            labels[index, start : len(ids)] = row[start:]
        return tokens, labels

    def _fill(self, noisy: bool, batches: int = 8) -> list[list[tuple[list[int], int]]]:
        documents = []
        for _ in range(self._batch * batches):
            noise = self._rng.choices(list(MIXTURE), list(MIXTURE.values()))[0] if noisy else "clean"
            # The tokenizer was trained on the last 3000 training seeds; drawing them here too does no harm.
            documents.append(generate(self._rng.choice(TRAINING_SEEDS), noise))
        questions = self._tokenizer.encode_batch([chat_prompt(prompt(d.text)[0]["content"]) for d in documents])
        answers = [self._answer(canonical_json(document.truth)) for document in documents]
        encoded_answers = self._tokenizer.encode_batch([text for text, _ in answers])
        rows = []
        for question, answer, (_, forced) in zip(questions, encoded_answers, answers, strict=True):
            free = next(at for at, (start, _) in enumerate(answer.offsets) if start >= forced)
            rows.append((question.ids + answer.ids, len(question.ids) + free))
        rows.sort(key=lambda row: len(row[0]))
        chunks = [rows[at : at + self._batch] for at in range(0, len(rows), self._batch)]
        self._rng.shuffle(chunks)
        return chunks

    def _answer(self, json_text: str) -> tuple[str, int]:
        """Return the assistant's turn, and how many of its characters an engine would have forced."""
        if self._rng.random() >= TOOL_SHARE:
            return json_text + TURN_END, 0
        forced, opening, closing = self._rng.choice(TOOL_FORMS)
        forced += self._rng.choice(TOOL_NAMES)
        return forced + opening + json_text + closing + TURN_END, len(forced)


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up over the first 2% of the budget, then cosine down to 1% of `peak`."""
    if progress < 0.02:
        return peak * (0.05 + 0.95 * progress / 0.02)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.02) / 0.98))))


def greedy(model: LlamaForCausalLM, tokenizer: Tokenizer, texts: list[str], limit: int = 90) -> list[str]:
    """Return greedy answers to `texts`, decoded in one batch."""
    end, pad = tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)
    encoded = [tokenizer.encode(chat_prompt(prompt(text)[0]["content"])).ids for text in texts]
    width = max(len(ids) for ids in encoded)
    tokens = torch.tensor([[pad] * (width - len(ids)) + ids for ids in encoded])
    with torch.inference_mode():
        out = model.generate(
            input_ids=tokens,
            attention_mask=tokens != pad,
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=pad,
        )
    return [tokenizer.decode(row) for row in out[:, width:].tolist()]


def exact_share(model: LlamaForCausalLM, tokenizer: Tokenizer, noise: str, documents: int) -> float:
    """Return the share of held-out documents of `noise` that greedy decoding answers exactly right."""
    held_out = [generate(HELD_OUT_SEEDS.stop - 1 - index, noise) for index in range(documents)]
    answers = greedy(model, tokenizer, [document.text for document in held_out])
    return sum(exact(a, d.truth) for a, d in zip(answers, held_out, strict=True)) / documents


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices, and AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(plan: Plan) -> None:
    """Run `plan`; writes the tokenizer, `model.pt` (averaged float32) and `progress.jsonl` in `plan.out`."""
    torch.manual_seed(plan.seed)
    plan.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    save_tokenizer(tokenizer, plan.out)
    model, averaged = build_model(), build_model()
    if plan.start is not None:
        model.load_state_dict(torch.load(plan.start / "model.pt", weights_only=True))
    averaged.load_state_dict(model.state_dict())
    steppers = optimizers(model)
    batches = Batches(tokenizer, plan.batch, plan.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    started = time.monotonic()
    saved, step, tokens_seen, recent = started, 0, 0, 0.0
    while (progress := (time.monotonic() - started) / (plan.minutes * 60)) < 1.0:
        tokens, labels = batches.draw(noisy=progress > 0.1 or plan.start is not None)
        loss = _step(model, steppers, tokens, labels, learning_rate(progress, plan.rate))
        step, tokens_seen = step + 1, tokens_seen + tokens.numel()
        recent = loss if step == 1 else 0.95 * recent + 0.05 * loss
        _average(averaged, model, min(plan.average, step / (step + 10)))
        if step % 50 == 0:
            rate = tokens_seen / (time.monotonic() - started)
            print(f"{progress:6.1%} step {step} loss {recent:.4f} {rate:,.0f} tokens/s", flush=True)
        if time.monotonic() - saved > plan.checkpoint_minutes * 60:
            _checkpoint(plan, averaged, tokenizer, step)
            saved = time.monotonic()
    _checkpoint(plan, averaged, tokenizer, step)


def _step(
    model: LlamaForCausalLM,
    steppers: list[torch.optim.Optimizer],
    tokens: torch.Tensor,
    labels: torch.Tensor,
    rate: float,
) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        targets = labels[:, 1:]
        counted = targets != IGNORED
        logits = model.lm_head(hidden[counted])  # the loss counts on the answer only
    loss = torch.nn.functional.cross_entropy(logits.float(), targets[counted])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for stepper in steppers:
        for group in stepper.param_groups:
            group["lr"] = rate
        stepper.step()
        stepper.zero_grad(set_to_none=True)
    return float(loss.detach())


def _average(averaged: LlamaForCausalLM, model: LlamaForCausalLM, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1.0 - decay)


def _checkpoint(plan: Plan, averaged: LlamaForCausalLM, tokenizer: Tokenizer, step: int) -> None:
    averaged.eval()
    count = plan.evaluate_documents
    shares = {noise: exact_share(averaged, tokenizer, noise, count) for noise in ("clean", "light", "heavy")}
    partial = plan.out / "model.pt.partial"
    torch.save(averaged.state_dict(), partial)
    partial.replace(plan.out / "model.pt")
    line = json.dumps({"step": step, "exact": shares})
    with (plan.out / "progress.jsonl").open("a") as file:
        file.write(line + "\n")
    print(f"checkpoint {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model on generated eye-biometry reports.")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer, model.pt and progress")
    parser.add_argument("--start", type=Path, help="continue from the model.pt in this folder")
    parser.add_argument("--minutes", type=float, default=36.0, help="wall time to train, minutes")
    parser.add_argument("--batch", type=int, default=32, help="documents per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--average", type=float, default=0.998, help="weight average decay per step")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0, help="time between checkpoints")
    parser.add_argument("--evaluate-documents", type=int, default=48, help="documents per noise and check")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and training documents")
    given = vars(parser.parse_args())
    torch.set_num_threads(given.pop("threads"))
    train(Plan(**given))


if __name__ == "__main__":
    main()
