"""Asks a real small model short questions, and writes which it answered rightly, for `spillway calibrate-complexity`.

    python -m loadtests.confidence.small_model http://127.0.0.1:8001/v1 MODEL > small_model.jsonl

    spillway calibrate-complexity small_model.jsonl

The engine speaks OpenAI's API. Greedy decoding, at most 24 tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx

from loadtests.confidence.requests import CHARACTERS_PER_TOKEN, INPUT_USD, OUTPUT_USD
from loadtests.confidence.small_questions import Question, questions

AT_ONCE, LIMIT_S = 16, 300.0
MOST_TOKENS = 24


async def ask(url: str, model: str) -> list[tuple[Question, str]]:
    """Return each question with the model's answer."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=LIMIT_S) as client:

        async def one(question: Question) -> tuple[Question, str]:
            messages = [{"role": "user", "content": question.text}]
            body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MOST_TOKENS}
            async with turns:
                reply = await client.post(f"{url}/chat/completions", json=body)
            reply.raise_for_status()
            return question, str(reply.json()["choices"][0]["message"]["content"])

        return await asyncio.gather(*[one(question) for question in questions()])


def line(question: Question, answer: str) -> str:
    """Return one question as a labelled request. The dear answer is taken to be right, at GPT-4o's list price."""
    usd = (len(question.text) * INPUT_USD + len(question.right[0]) * OUTPUT_USD) / CHARACTERS_PER_TOKEN
    row = {
        "text": question.text,
        "hard": not question.is_answered_by(answer),
        "group": question.group,
        "kind": question.kind,
        "dear_usd": round(usd, 9),
        "answer": answer.strip()[:80],
    }
    return json.dumps(row, ensure_ascii=False)


if __name__ == "__main__":
    for question, answer in asyncio.run(ask(*sys.argv[1:3])):
        print(line(question, answer))
