"""Asks a running engine for the answers of the dataset and stores them.

    spillway serve --port 8001
    python -m loadtests.confidence.collect --base-url http://127.0.0.1:8001/v1
    python -m loadtests.confidence.collect --base-url http://127.0.0.1:8001/v1 --fresh

It collects about 8 answers/s beside other work on two CPU cores, and 60 on idle ones.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
from rich.progress import track

from loadtests.confidence.dataset import ANSWERS, DOCUMENTS, FIRST, FRESH, packed
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, NOISES, generate, prompt
from spillway_server.demo_model.evaluate import MAX_ANSWER_TOKENS, served_model

CONNECTIONS = 16
ATTEMPTS = 5


class CollectError(Exception):
    """The engine could not be asked; the message says what went wrong."""


def collect(base_url: str, first: int, documents: int) -> Iterator[str]:
    """Return the packed answers to `documents` documents from number `first` on, in every kind of damage, in their
    order.

    Raises:
        CollectError: the engine fails ATTEMPTS times at one document, or sends no log-probabilities.
    """
    model = served_model(base_url)
    jobs = [(first + number, noise) for number in range(documents) for noise in NOISES]
    # The engine closes idle connections after 5 s.
    limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=3.0)
    with (
        httpx.Client(base_url=base_url, timeout=120.0, limits=limits) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        yield from pool.map(lambda job: _ask(client, model, *job), jobs)


def _ask(client: httpx.Client, model: str, number: int, noise: str) -> str:
    body = {
        "model": model,
        "messages": prompt(generate(HELD_OUT_SEEDS[number], noise).text),
        "temperature": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
        "logprobs": True,
        "top_logprobs": 2,
    }
    problem: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            choice = client.post("chat/completions", json=body).raise_for_status().json()["choices"][0]
            content = choice["logprobs"]["content"]
            tokens = [(t["token"], sorted((o["logprob"] for o in t["top_logprobs"]), reverse=True)) for t in content]
            return packed(number, noise, choice["message"]["content"] or "", tokens)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            problem = error
    raise CollectError(f"document {number} ({noise}) failed {ATTEMPTS} times: {problem!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Stores the demo model's answers with their log-probabilities.")
    parser.add_argument("--base-url", required=True, help="for example http://127.0.0.1:8001/v1")
    parser.add_argument("--fresh", action="store_true", help="the documents that are for judging alone")
    given = parser.parse_args()
    first, file = (FIRST + DOCUMENTS, FRESH) if given.fresh else (FIRST, ANSWERS)
    lines = collect(given.base_url, first, DOCUMENTS)
    # mtime 0: the same answers give the same file.
    with gzip.GzipFile(file, "wb", 9, mtime=0) as out:
        for line in track(lines, description="answers", total=DOCUMENTS * len(NOISES)):
            out.write(line.encode() + b"\n")


if __name__ == "__main__":
    main()
