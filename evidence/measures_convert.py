"""The demo model's GGUF, converted and served by real vLLM on the CPU, against the weights that it was made from."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from loadtests.bench.processes import ROOT

from evidence.results import Measurement, not_measured
from evidence.served import SPILLWAY, FailedError, serving
from spillway_server.convert import gate
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, Document, exact, generate, prompt

AGREEMENT, DROP = "convert.greedy_agreement", "convert.w4a16_accuracy_drop"
IDS = (AGREEMENT, DROP)
GGUF = ROOT / "server/spillway_server/demo_model/weights/gguf/spillway-demo-F16.gguf"
# Noisy documents have near ties between digits, where a difference between two sets of weights shows first.
CLEAN, LIGHT = 500, 100
ANSWER_TOKENS = 120
CONVERT_LIMIT_S = 1500


def documents(clean: int, light: int) -> list[Document]:
    """Return held-out documents, clean ones first."""
    return [generate(seed) for seed in HELD_OUT_SEEDS[:clean]] + [generate(s, "light") for s in HELD_OUT_SEEDS[:light]]


def converted(out: Path, *words: str, gguf: Path = GGUF, samples: int = 60) -> dict[str, object]:
    """Run `spillway convert` as a user does; return what it wrote into spillway.json.

    Raises:
        FailedError: the command fails.
    """
    command = [str(SPILLWAY), "convert", str(gguf), "--out", str(out), "--gate", "demo", *words]
    command += ["--gate-samples", str(samples)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CONVERT_LIMIT_S, check=False)
    file = out / "spillway.json"
    if not file.exists():
        raise FailedError(f"the conversion ended with status {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    record: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return record


def answers(base: str, model: str, asked: Sequence[Document]) -> tuple[str, ...]:
    """Return greedy answers in order, without a grammar.

    Raises:
        FailedError: the engine fails.
    """

    def ask(document: Document) -> str:
        body = {"model": model, "messages": prompt(document.text), "temperature": 0, "max_tokens": ANSWER_TOKENS}
        reply = client.post(f"{base}/chat/completions", json=body).raise_for_status().json()
        return str(reply["choices"][0]["message"]["content"] or "")

    # One connection per request: vLLM closes idle ones after 5 s, which on a busy machine hits requests under way.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(timeout=120, trust_env=False, limits=limits) as client, ThreadPoolExecutor(16) as pool:
        try:
            return tuple(pool.map(ask, asked))
        except httpx.HTTPError as error:
            raise FailedError(f"the engine at {base} failed: {error!r}") from error


def right(given: Sequence[str], asked: Sequence[Document]) -> int:
    """Return how many answers are exactly right."""
    return sum(exact(answer, document.truth) for answer, document in zip(given, asked, strict=True))


def conversion(
    say: Callable[[str], None],
    *,
    clean: int = CLEAN,
    light: int = LIGHT,
    spoil: Callable[[Path], None] = lambda _folder: None,
) -> dict[str, Measurement]:
    """Measure both promises with three engines, one after the other; `spoil` may damage a converted folder (a seeded
    fault).
    """
    questions = documents(clean, light)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            answers_of: dict[str, tuple[str, ...]] = {}
            verdicts = {}
            for name, precision in (("unpacked", "16bit"), ("w4a16", "w4a16")):
                say(f"  converting to {precision}")
                verdicts[name] = converted(folder / name, "--precision", precision)
                spoil(folder / name)
            for name, model in (("original", "demo"), *((name, str(folder / name)) for name in verdicts)):
                say(f"  {name}: starting the engine, {len(questions)} documents")
                with serving(folder, "--model", model, "--device", "cpu") as (base, served):
                    answers_of[name] = answers(base, served, questions)
        except (FailedError, subprocess.TimeoutExpired) as error:
            failed = not_measured(str(error))
            return {AGREEMENT: failed, DROP: failed}
        shutil.rmtree(folder, ignore_errors=True)
    return _measurements(answers_of, verdicts, questions, clean)


def _measurements(
    answers_of: dict[str, tuple[str, ...]], verdicts: dict[str, dict[str, object]], asked: list[Document], clean: int
) -> dict[str, Measurement]:
    shares = {name: right(given[:clean], asked[:clean]) / clean for name, given in answers_of.items()}
    same = gate.agreement(answers_of["original"], answers_of["unpacked"])
    agreement = {
        "clean_documents": clean,
        "lightly_noised_documents": len(asked) - clean,
        "clean_exact": {name: round(share, 4) for name, share in shares.items()},
        "gate": verdicts["unpacked"]["figures"],
    }
    drop = {
        "clean_exact_original": round(shares["original"], 4),
        "clean_exact_w4a16": round(shares["w4a16"], 4),
        "same_answers_as_original": round(gate.agreement(answers_of["original"], answers_of["w4a16"]), 4),
        "recipe": verdicts["w4a16"]["recipe"],
        "gate": verdicts["w4a16"]["figures"],
        "verified": verdicts["w4a16"]["verified"],
    }
    return {
        AGREEMENT: Measurement(round(same, 4), len(asked), agreement),
        DROP: Measurement(round(shares["original"] - shares["w4a16"], 4), clean, drop),
    }
