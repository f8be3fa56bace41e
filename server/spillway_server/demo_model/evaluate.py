"""Measure the demo model through a running OpenAI-compatible server, normally vLLM.

`python -m spillway_server.demo_model.evaluate --base-url http://127.0.0.1:PORT/v1` prints, per noise level, the share
of held-out documents answered exactly right, with the 95% Wilson interval. Decoding is greedy and without a grammar, so
that the model is measured and not a schema that could repair its answers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from spillway_server.demo_model.documents import HELD_OUT_SEEDS, NOISES, Document, exact, generate, prompt

MAX_ANSWER_TOKENS = 120


class EvaluationError(Exception):
    """A request failed; the message says which one and what to check."""


@dataclass(frozen=True, slots=True)
class NoiseResult:
    """`right` of `n` documents of one noise level were exactly right; tokens are means over the documents."""

    noise: str
    n: int
    right: int
    prompt_tokens: float
    answer_tokens: float

    @property
    def share(self) -> float:
        """Share of documents exactly right, 0..1."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson score interval of `share` (Wilson 1927)."""
        z = 1.96
        centre = (self.share + z * z / (2 * self.n)) / (1 + z * z / self.n)
        spread = z * math.sqrt(self.share * (1 - self.share) / self.n + z * z / (4 * self.n**2))
        spread /= 1 + z * z / self.n
        return max(0.0, centre - spread), min(1.0, centre + spread)


@dataclass(frozen=True, slots=True)
class _Answer:
    right: bool
    prompt_tokens: int
    answer_tokens: int


def evaluate(
    base_url: str, model: str, n: int, noises: Sequence[str] = NOISES, connections: int = 16
) -> list[NoiseResult]:
    """Send the first `n` held-out documents of every noise level to `model` at `base_url`, which ends in /v1.

    Raises `EvaluationError` when a request fails or takes more than 60 s, `ValueError` when `n` is out of range.
    """
    if not 1 <= n <= len(HELD_OUT_SEEDS):
        raise ValueError(f"n must be between 1 and {len(HELD_OUT_SEEDS)}, not {n}")
    limits = httpx.Limits(max_connections=connections)
    results = []
    client = httpx.Client(base_url=base_url, timeout=60.0, limits=limits)
    with client, ThreadPoolExecutor(connections) as pool:
        for noise in noises:
            documents = [generate(seed, noise) for seed in HELD_OUT_SEEDS[:n]]
            answers = list(pool.map(lambda document: _ask(client, model, document), documents))
            results.append(_summary(noise, answers))
    return results


def _ask(client: httpx.Client, model: str, document: Document) -> _Answer:
    body = {
        "model": model,
        "messages": prompt(document.text),
        "temperature": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
    }
    try:
        response = client.post("chat/completions", json=body)
        response.raise_for_status()
        reply = response.json()
        text = reply["choices"][0]["message"]["content"] or ""
        usage = reply["usage"]
    except httpx.HTTPStatusError as error:
        detail = f"{error.response.status_code} {error.response.text[:200]}"
        raise EvaluationError(f"{error.request.url} answered {detail}") from error
    except httpx.HTTPError as error:
        raise EvaluationError(f"no answer from {client.base_url} ({error!r}): is the server up?") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EvaluationError(f"{client.base_url} gave no chat completion ({error!r})") from error
    return _Answer(exact(text, document.truth), usage["prompt_tokens"], usage["completion_tokens"])


def _summary(noise: str, answers: Sequence[_Answer]) -> NoiseResult:
    return NoiseResult(
        noise=noise,
        n=len(answers),
        right=sum(answer.right for answer in answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers) / len(answers),
        answer_tokens=sum(answer.answer_tokens for answer in answers) / len(answers),
    )


def served_model(base_url: str) -> str:
    """The first model that the server at `base_url` lists. Raises EvaluationError when there is none."""
    try:
        response = httpx.get(base_url.rstrip("/") + "/models", timeout=10.0)
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        raise EvaluationError(f"{base_url} lists no model ({error!r}): is it a /v1 base URL?") from error


def table(results: Sequence[NoiseResult]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| noise | documents | exactly right | 95% interval | prompt tokens | answer tokens |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        low, high = result.interval
        lines.append(
            f"| {result.noise} | {result.n} | {result.share:.1%} | {low:.1%} - {high:.1%} "
            f"| {result.prompt_tokens:.0f} | {result.answer_tokens:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact-match share of the demo model per noise level.")
    parser.add_argument("--base-url", required=True, help="for example http://127.0.0.1:8001/v1")
    parser.add_argument("--model", help="served model name; default: the first one listed")
    parser.add_argument("--documents", type=int, default=300, help="documents per noise level")
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=list(NOISES))
    given = parser.parse_args()
    try:
        model = given.model or served_model(given.base_url)
        print(table(evaluate(given.base_url, model, given.documents, given.noise)))
    except (EvaluationError, ValueError) as error:
        raise SystemExit(f"evaluation failed: {error}") from error


if __name__ == "__main__":
    main()
