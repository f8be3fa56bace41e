"""Asks a running engine about the dataset's answers, as the router's `confidence.self_check` would, and stores its
words.

    spillway serve --port 8001
    python -m loadtests.confidence.second_look --base-url http://127.0.0.1:8001/v1
    python -m loadtests.confidence.second_look --report

Both questions are asked about the same answers. Stored are the log-probabilities of those alternatives of the first
token that begin one of the words, summed per word, and the text that should be a number. The report says what either
score is worth alone, and what it adds to the calibrated combination on the held-out answers.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.progress import track

from loadtests.confidence.collect import ATTEMPTS, CONNECTIONS, CollectError
from loadtests.confidence.dataset import LabelledAnswer, answers, labelled
from spillway_router.calibration.fit import FitError, fit, table
from spillway_router.calibration.measures import auroc, interval, resamples
from spillway_router.core.confidence.self_check import (
    LEAST_MASS,
    QUESTIONS,
    SelfCheck,
    SelfCheckKind,
    stated,
    word_probabilities,
)
from spillway_router.providers.logprobs import answer_text, first_alternatives
from spillway_router.proxy.exchange.self_check import question_body
from spillway_server.demo_model.documents import prompt
from spillway_server.demo_model.evaluate import served_model

LOOKS = Path(__file__).with_name("second_looks.jsonl.gz")
WORDS = ("True", "False")
REPEATS = 1000


def rule(kind: SelfCheckKind) -> SelfCheck:
    """Return the shipped questions."""
    return SelfCheck(kind=kind, band=1.0, longest_s=60.0, question=QUESTIONS[kind], words=WORDS)


def collect(base_url: str, given: Sequence[LabelledAnswer]) -> Iterator[str]:
    """Yield one JSON line per answer, in their order.

    Raises:
        CollectError: the engine fails ATTEMPTS times at one answer.
    """
    model = served_model(base_url)
    limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=3.0)
    with (
        httpx.Client(base_url=base_url, timeout=120.0, limits=limits) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        yield from pool.map(lambda answer: _ask(client, model, answer), given)


def _ask(client: httpx.Client, model: str, answer: LabelledAnswer) -> str:
    asked = {"messages": prompt(answer.document.text)}
    look: dict[str, Any] = {}
    for kind in QUESTIONS:
        choice = _post(client, question_body(asked, model, answer.text, rule(kind)))
        if kind == "p_true":
            alternatives = first_alternatives(choice)
            right, wrong = word_probabilities(alternatives, WORDS)
            look |= {"best": alternatives[0][0], "p": [float(f"{right:.6g}"), float(f"{wrong:.6g}")]}
        else:
            look |= {"said": answer_text(choice), "end": choice["finish_reason"]}
    return json.dumps(look, separators=(",", ":"))


def _post(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    problem: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            choice: dict[str, Any] = client.post("chat/completions", json=body).raise_for_status().json()["choices"][0]
            return choice
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            problem = error
    raise CollectError(f"the engine failed {ATTEMPTS} times at one question: {problem!r}")


def looks(path: Path = LOOKS) -> list[dict[str, Any]]:
    """Read the stored second looks, in the order of the answers."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _scores(look: dict[str, Any]) -> dict[str, float]:
    """Return the router's score, and P(True) as it is when the likelihood of both words is ignored."""
    scores: dict[str, float] = {}
    right, wrong = look["p"]
    if right + wrong > 0.0:
        scores["p_true of any mass"] = right / (right + wrong)
    if right + wrong >= LEAST_MASS:
        scores["p_true"] = right / (right + wrong)
    number = stated(look["said"]) if look["end"] == "stop" else None
    return scores if number is None else {**scores, "stated": number}


def report() -> dict[str, Any]:
    """Report the AUROC of each score among the held-out answers that have it, and what it adds to the combination.

    The combination is fitted anew with and without the score; intervals are 95% bootstrap intervals over documents.
    """
    rows = [(answer.held_out, labelled(answer), _scores(look)) for answer, look in zip(answers(), looks(), strict=True)]
    figures: dict[str, Any] = {"answers": len(rows)}
    for name in ("p_true", "p_true of any mass", "stated"):
        mine = [(held, row, {**row.scores, name: scores[name]}) for held, row, scores in rows if name in scores]
        figures[name] = {"answers with it": len(mine), **_worth(name, mine)}
    return figures


def _worth(name: str, rows: Sequence[tuple[bool, Any, dict[str, float]]]) -> dict[str, Any]:
    held = [(row, scores) for is_held, row, scores in rows if is_held]
    if not held:
        return {}
    right = np.array([float(row.right) for row, _ in held])
    draws = resamples([row.group for row, _ in held], REPEATS)
    alone = np.array([scores[name] for _, scores in held])
    worth: dict[str, Any] = {"auroc": _figure(lambda r: auroc(alone[r], right[r]), len(held), draws)}
    fitting = [(row, scores) for is_held, row, scores in rows if not is_held]
    try:
        with_it = fit(table([(scores, row.right, row.group) for row, scores in fitting])).stage
        without = fit(table([(row.scores, row.right, row.group) for row, _ in fitting])).stage
    except FitError as error:
        return {**worth, "not fitted": str(error)}
    p = np.array([with_it.probability(scores) for _, scores in held])
    q = np.array([without.probability(row.scores) for row, _ in held])
    worth["combination's auroc without it"] = round(auroc(q, right), 4)
    worth["combination gains"] = _figure(lambda r: auroc(p[r], right[r]) - auroc(q[r], right[r]), len(held), draws)
    return worth


def _figure(statistic: Callable[[Any], float], count: int, draws: Sequence[Any]) -> list[float]:
    return interval(statistic, count, draws).rounded()


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks the demo model about its own answers.")
    parser.add_argument("--base-url", help="for example http://127.0.0.1:8001/v1")
    parser.add_argument("--report", action="store_true", help="tell what is stored, ask nothing")
    parser.add_argument("--answers", type=int, help="the first so many; default: all")
    given = parser.parse_args()
    if given.report or not given.base_url:
        print(json.dumps(report(), indent=2))
        return
    chosen = list(islice(answers(), given.answers))
    # mtime 0: the same looks give the same file.
    with gzip.GzipFile(LOOKS, "wb", 9, mtime=0) as out:
        for line in track(collect(given.base_url, chosen), description="second looks", total=len(chosen)):
            out.write(line.encode() + b"\n")


if __name__ == "__main__":
    main()
