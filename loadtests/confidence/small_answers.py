"""The answers of SmolLM2-135M-Instruct, a small general model, to short questions, with their log-probabilities.

    spillway convert SmolLM2-135M-Instruct.Q4_1.gguf --output SMOLLM2 --precision 16bit
    spillway serve --model SMOLLM2 --port 8001
    python -m loadtests.confidence.small_answers http://127.0.0.1:8001/v1        # some minutes on two cores

The answers are committed (`small_answers.jsonl.gz`; the model's weights are under Apache-2.0), so that the tables of
small_bench.py come without an engine. The cloud is made up: it is right on `CLOUD_RIGHT` of the questions, by their
text.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from loadtests.confidence.small_questions import Question, extractions, questions
from spillway_router.calibration.labelled import Labelled, from_tokens
from spillway_router.core.confidence.judge import AnswerContext, judge
from spillway_router.core.confidence.scores import Token

ANSWERS = Path(__file__).with_name("small_answers.jsonl.gz")
MODEL = "SmolLM2-135M-Instruct"
TASKS: Mapping[str, frozenset[str]] = {
    "arithmetic": frozenset({"sum", "difference", "product", "larger", "digits"}),
    "facts": frozenset({"capital", "opposite", "past", "element", "german", "calendar"}),
    "extraction": frozenset({"extraction"}),
}
"""The kinds of questions of each task."""
PER_TASK = 300
MOST_TOKENS, TOP_LOGPROBS = 24, 5
AT_ONCE, LIMIT_S = 16, 600.0
CLOUD_RIGHT = 0.95


@dataclass(frozen=True, slots=True)
class SmallAnswer:
    """A question of a task with the model's answer and its tokens."""

    task: str
    question: Question
    text: str
    tokens: tuple[Token, ...]

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.question.is_answered_by(self.text)

    @property
    def context(self) -> AnswerContext:
        """What the router knows of the question."""
        return AnswerContext(source=self.question.text)

    @property
    def rule(self) -> float:
        """The confidence without a calibration; 0 where there is no signal."""
        return judge(self.tokens, self.text, self.context, None).confidence or 0.0

    @property
    def cloud_is_right(self) -> bool:
        """Whether the made-up cloud answers this question right."""
        return Random(f"cloud/{self.question.text}").random() < CLOUD_RIGHT

    def labelled(self) -> Labelled | None:
        """Return the answer as `spillway calibrate` reads it; None without a signal."""
        return from_tokens(list(self.tokens), self.text, self.context, self.right, self.question.group, {})


def asked() -> list[tuple[str, Question]]:
    """Return the questions of every task, always the same."""
    every = [*questions(3000), *extractions(PER_TASK)]
    chosen = {task: [one for one in every if one.kind in kinds][:PER_TASK] for task, kinds in TASKS.items()}
    return [(task, question) for task, listed in chosen.items() for question in listed]


def answers(path: Path = ANSWERS) -> Iterator[SmallAnswer]:
    """Read the committed answers, which are in the order of `asked`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for (task, question), line in zip(asked(), lines, strict=True):
            row = json.loads(line)
            if row["q"] != question.text:
                raise ValueError(f"{path.name} does not answer the question {question.text!r}; collect it again")
            tokens = tuple(Token(text, best, tuple(others)) for text, best, others in row["k"])
            yield SmallAnswer(task, question, row["t"], tokens)


async def collect(url: str) -> list[str]:
    """Ask a running engine, and return the answers as lines of the file. Raises httpx.HTTPError."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
        model = (await client.get(f"{url}/models")).raise_for_status().json()["data"][0]["id"]

        async def one(question: Question) -> str:
            body = {
                "model": model, "messages": [{"role": "user", "content": question.text}], "temperature": 0,
                "max_tokens": MOST_TOKENS, "logprobs": True, "top_logprobs": TOP_LOGPROBS,
            }  # fmt: skip
            async with turns:
                reply = await client.post(f"{url}/chat/completions", json=body)
            return _line(question, reply.raise_for_status().json()["choices"][0])

        return await asyncio.gather(*[one(question) for _, question in asked()])


def _line(question: Question, choice: Mapping[str, Any]) -> str:
    tokens = [
        [token["token"], _short(token["logprob"]), [_short(other["logprob"]) for other in token["top_logprobs"]]]
        for token in choice["logprobs"]["content"]
    ]
    row = {"q": question.text, "t": choice["message"]["content"], "k": tokens}
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def _short(logprob: float) -> float:
    return float(f"{logprob:.4g}")


def main() -> None:
    lines = asyncio.run(collect(sys.argv[1].rstrip("/")))
    ANSWERS.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    print(f"{ANSWERS.name}: {len(lines)} answers, {sum(answer.right for answer in answers())} right")


if __name__ == "__main__":
    main()
