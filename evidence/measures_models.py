"""Two real models from GGUF: unpacked and quantised by `spillway convert`, against llama.cpp on the file itself.

The files are put into .cache/models by whoever measures (docs/convert.md says how): SmolLM2-135M-Instruct Q4_1
(Apache-2.0) and gemma-3-270m Q4_K_M (Gemma's terms; nothing of it is in the repository). llama.cpp comes with
.venv-llama. Perplexity is that of the second halves of paragraphs of this project's documents, given the first.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from loadtests.bench.processes import ROOT

from evidence.results import Measurement, not_measured
from evidence.served import FailedError, serving
from spillway_server.convert import environment
from spillway_server.convert.environment import Worker, llama_judge
from spillway_server.convert.gate import agreement
from spillway_server.convert.pipeline import Conversion, ConversionOptions, Converted
from spillway_server.convert.source import find
from spillway_server.obstacle import Obstacle

RATIO, LADDER = "models.gguf_16bit_ratio", "models.ladder_ratio"
GREEDY, DIFFER = "models.gguf_greedy_equal", "models.transplant_bits_differ"
FOLDER = ROOT / ".cache" / "models"
FILES = {"SmolLM2-135M-Instruct.Q4_1.gguf": None, "gemma-3-270m-q4_k_m.gguf": "none"}
"""The file names, and the chat template to convert with (None: the file's own)."""
PARAGRAPHS, ANSWER_TOKENS, PROMPTS = 24, 24, 200
_THINGS = ("river", "bridge", "winter", "kitchen", "planet", "garden", "railway", "teacher", "market", "violin")
_ASKED = (
    "Write one sentence about a {}.",
    "Name three things that belong to a {}.",
    "What is a {}?",
    "Complete: The {} was",
    "Give an adjective for a {}.",
    "Where would you find a {}?",
    "Write a question about a {}.",
    "Why do people like a {}?",
    "Spell the word {}.",
    "Describe the colour of a {}.",
    "What is the plural of {}?",
    "Invent a name for a {}.",
    "Use the word {} in a short poem.",
    "Is a {} larger than a house?",
    "Say something surprising about a {}.",
    "Complete: Without a {} we",
    "How old can a {} be?",
    "Translate '{}' into French.",
    "What rhymes with {}?",
    "Who works with a {}?",
)


def conversions(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Convert both files with the ladder; compare 16 bit and what the ladder chose with llama.cpp on the file."""
    python, worker, missing = _programs()
    if missing or python is None or worker is None:
        return {RATIO: not_measured(missing), LADDER: not_measured(missing)}
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, template in FILES.items():
            say(f"  converting {name}")
            result = _converted(Path(scratch) / name, name, template, worker, python)
            if isinstance(result, Obstacle):
                failed = not_measured(f"{name}: {result.reason}")
                return {RATIO: failed, LADDER: failed}
            figures, ladder = result.verdict.figures, result.verdict.recipe["ladder"]
            rows[name] = {
                "llama_cpp": figures["llama_cpp_perplexity"],
                "16_bit": figures["reference_perplexity"],
                "chosen": figures["perplexity"],
                "ladder": ladder,
                "verified": result.verdict.verified,
                "reasons": list(result.verdict.reasons),
            }
            say(f"  {rows[name]}")
    plain = max(row["16_bit"] / row["llama_cpp"] for row in rows.values())
    chosen = max(row["chosen"] / row["llama_cpp"] for row in rows.values())
    details = {"paragraphs": PARAGRAPHS, "models": rows}
    return {
        RATIO: Measurement(round(plain, 4), len(rows), details),
        LADDER: Measurement(round(chosen, 4), len(rows), details),
    }


def greedy_equal(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Serve SmolLM2, unpacked to 16 bit, with vLLM on the CPU; compare greedy answers with llama.cpp's on the same
    weights written as a 16-bit GGUF."""
    python, worker, missing = _programs()
    if missing or python is None or worker is None:
        return {GREEDY: not_measured(missing)}
    name = next(iter(FILES))
    asked = [text.format(thing) for thing in _THINGS for text in _ASKED][:PROMPTS]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain = folder / "F16.gguf"
        job = {"job": "requantise", "gguf": str(FOLDER / name), "target": str(plain), "kind": "F16"}
        rewritten = worker.run(job, lambda _share, _what: None)
        unpacked = _converted(folder / "plain", name, None, worker, None, precision="16bit", paragraphs=2)
        for result in (rewritten, unpacked):
            if isinstance(result, Obstacle):
                return {GREEDY: not_measured(result.reason)}
        say("  starting vLLM")
        try:
            with serving(folder, "--model", str(folder / "plain"), "--device", "cpu") as (base, served):
                ours, prompts = _answers(base, served, asked)
        except FailedError as error:
            return {GREEDY: not_measured(str(error))}
        say("  asking llama.cpp")
        wanted = {"gguf": str(plain), "prompts": prompts, "answers": [""] * len(prompts)}
        theirs = llama_judge(python, {**wanted, "answer_tokens": ANSWER_TOKENS})
        if isinstance(theirs, Obstacle):
            return {GREEDY: not_measured(theirs.reason)}
    share = agreement(ours, tuple(theirs["answers"]))
    details = {"model": name, "answer_tokens": ANSWER_TOKENS, "engine": "vLLM on the CPU, float32"}
    return {GREEDY: Measurement(round(share, 4), len(asked), details)}


def transplanted(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Carry Q8_0 and Q4_0 over, and count the weights that differ from those in the GGUF."""
    _, worker, missing = _programs(needs_llama=False)
    if missing or worker is None:
        return {DIFFER: not_measured(missing)}
    script = ROOT / "tests" / "server" / "convert" / "carried.py"
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [str(worker.python), str(script), str(FOLDER / next(iter(FILES))), scratch],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "server")},
        )
    if done.returncode:
        return {DIFFER: not_measured(done.stderr.strip()[-300:])}
    counts = json.loads(done.stdout.splitlines()[-1])
    say(f"  {counts}")
    weights = sum(int(row["weights"]) for row in counts.values())
    return {DIFFER: Measurement(sum(int(row["differ"]) for row in counts.values()), weights, counts)}


def _programs(needs_llama: bool = True) -> tuple[Path | None, Worker | None, str]:
    """Return llama.cpp's Python, the converter's, and what is missing."""
    absent = [name for name in FILES if not (FOLDER / name).exists()]
    if absent:
        return None, None, f"{', '.join(absent)} not in .cache/models"
    llama = environment.find_llama(None, (ROOT,))
    worker = environment.find_worker(None, (ROOT,), False, lambda _line: None)
    if isinstance(worker, Obstacle):
        return llama, None, worker.reason
    return llama, worker, "" if llama or not needs_llama else ".venv-llama has no llama-cpp-python"


def halves(count: int) -> list[dict[str, str]]:
    """Return the first `count` long paragraphs of the documents, cut in halves at a word."""
    texts: list[str] = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in page.read_text(encoding="utf-8").split("\n\n"):
            text = " ".join(block.split())
            if re.match(r"[A-Z]", text) and "|" not in text and text.count("`") <= 2 and 150 <= len(text) <= 700:
                texts.append(text)
    parts = []
    for text in texts[:count]:
        middle = text.index(" ", len(text) // 2)
        parts.append({"prompt": text[:middle], "answer": text[middle:]})
    return parts


def _converted(
    out: Path,
    name: str,
    template: str | None,
    worker: Worker,
    llama: Path | None,
    *,
    precision: str = "auto",
    paragraphs: int = PARAGRAPHS,
) -> Converted | Obstacle:
    source = find(FOLDER / name)
    if isinstance(source, Obstacle):
        return source
    options = ConversionOptions(
        out=out, precision=precision, eight_bit=True, template=template, answer_tokens=1,
        samples=tuple(halves(paragraphs)),
    )  # fmt: skip
    # Halves of paragraphs have no right answer: only perplexity and llama.cpp's agreement are judged.
    options = replace(options, bounds=replace(options.bounds, max_drop=1.0, min_agreement=0.0))
    conversion = Conversion(source=source, options=options, worker=worker, llama=llama, on_event=lambda _event: None)
    return conversion.run()


def _answers(base: str, model: str, asked: Sequence[str]) -> tuple[tuple[str, ...], list[list[int]]]:
    """Return vLLM's greedy answers, and the token IDs of the prompts as it reads them.

    Raises:
        FailedError: the engine fails.
    """
    root = base.removesuffix("/v1")

    def ask(text: str) -> tuple[str, list[int]]:
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": ANSWER_TOKENS}
        reply = client.post(f"{base}/chat/completions", json=body).raise_for_status().json()
        tokens = client.post(f"{root}/tokenize", json={"model": model, "messages": messages}).raise_for_status().json()
        return str(reply["choices"][0]["message"]["content"] or ""), list(tokens["tokens"])

    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(timeout=300, trust_env=False, limits=limits) as client, ThreadPoolExecutor(8) as pool:
        try:
            pairs = list(pool.map(ask, asked))
        except httpx.HTTPError as error:
            raise FailedError(f"the engine at {base} failed: {error!r}") from error
    return tuple(answer for answer, _ in pairs), [tokens for _, tokens in pairs]
