"""The samples of the gate: JSON lines with `messages` or `prompt`, and the known `answer` where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spillway_server.demo_model.documents import HELD_OUT_SEEDS, TRAINING_SEEDS, canonical_json, generate, prompt
from spillway_server.obstacle import Obstacle

GENERAL = Path(__file__).with_name("general_samples.jsonl")
CALIBRATION = Path(__file__).with_name("calibration_text.jsonl")
"""Text for GPTQ and AWQ: 128 pieces of this project's own documentation, code and made-up conversations in five
languages, under the project's licence (Apache-2.0). None of them is a sample of the gate."""


def read(named: str | None, limit: int) -> list[dict[str, Any]] | Obstacle:
    """Return at most `limit` samples of a file, of the demo model's documents (`demo`), or of the general set
    (None)."""
    if named == "demo":
        return demo(HELD_OUT_SEEDS[:limit])
    file = GENERAL if named is None else Path(named).expanduser()
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()][:limit]
    except (OSError, UnicodeDecodeError) as error:
        return Obstacle(f"the samples in {file} can't be read: {error}.", "Name a file with one JSON object per line.")
    samples = []
    for number, line in enumerate(lines, 1):
        sample = _sample(line)
        if sample is None:
            return Obstacle(
                f"{file}, line {number}: not an object with `messages` or `prompt` (and a text `answer`).",
                'Write {"messages": [{"role": "user", "content": "..."}], "answer": "..."}.',
            )
        samples.append(sample)
    return samples if samples else Obstacle(f"{file} holds no sample.", "Write one JSON object per line.")


def _sample(line: str) -> dict[str, Any] | None:
    try:
        sample = json.loads(line)
    except ValueError:
        return None
    if not isinstance(sample, dict) or not isinstance(sample.get("answer", ""), str):
        return None
    messages = sample.get("messages")
    complete = isinstance(messages, list) and all(
        isinstance(m, dict) and "role" in m and "content" in m for m in messages
    )
    return sample if (messages and complete) or isinstance(sample.get("prompt"), str) else None


def demo(seeds: range) -> list[dict[str, Any]]:
    """Return the demo model's clean documents of these seeds, with their answers."""
    documents = [generate(seed) for seed in seeds]
    return [{"messages": prompt(document.text), "answer": canonical_json(document.truth)} for document in documents]


def general_calibration() -> list[dict[str, Any]]:
    """Return the built-in text for calibration."""
    return [json.loads(line) for line in CALIBRATION.read_text(encoding="utf-8").splitlines()]


def demo_calibration(count: int) -> list[dict[str, Any]]:
    """Return documents for calibration, from the training seeds, so that the gate's documents stay unseen."""
    return demo(TRAINING_SEEDS[:count])
