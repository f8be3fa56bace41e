"""The conversion from start to end: inspect -> unpack -> quantise -> judge -> verdict, each step resumable.

Work lies beside the result in `OUT.work` until the verdict is written; the result appears whole, by one rename.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spillway_server.convert import blessing, gate, templates
from spillway_server.convert.environment import Worker, llama_judge
from spillway_server.convert.gate import Bounds, EngineOutput
from spillway_server.convert.source import ModelSource
from spillway_server.convert.steps import ConversionStep, StepMarkers, Tell, contents, digest
from spillway_server.refusal import Refusal

METHODS = ("rtn", "gptq", "awq")
DTYPES = ("float16", "bfloat16", "float32")
# float16 and bfloat16 take 2 bytes; W4A16 with groups of 32 takes 0.56 and keeps embeddings at 2.
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """How to convert. `precision` is w4a16 or 16bit; `template` a name or Jinja text; `tokenizer` a directory that
    replaces the file's own; `samples` and `calibration` as samples.py reads them; `group_size` None: what fits."""

    out: Path
    precision: str = "w4a16"
    method: str = "rtn"
    group_size: int | None = None
    dtype: str | None = None
    template: str | None = None
    tokenizer: Path | None = None
    samples: tuple[dict[str, Any], ...] = ()
    calibration: tuple[dict[str, Any], ...] = ()
    answer_tokens: int = 120
    bounds: Bounds = field(default_factory=Bounds)
    keep_work: bool = False
    shard_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """The result: where it is, the verdict and everything that is written beside it."""

    folder: Path
    verdict: blessing.Blessing


class Conversion:
    """One conversion: `run` does what is left of it."""

    def __init__(
        self, source: ModelSource, wish: ConversionOptions, worker: Worker, llama: Path | None, tell: Tell
    ) -> None:
        self._source = source
        self._wish = wish
        self._worker = worker
        self._llama = llama
        self._work = wish.out.absolute().with_name(wish.out.name + ".work")
        self._ledger = StepMarkers(self._work / "markers", tell)

    def run(self) -> Converted | Refusal:
        """Convert, or say why not; what was done stays for the next run."""
        refusal = self._refuse()
        if refusal:
            return refusal
        self._work.mkdir(parents=True, exist_ok=True)
        with _alone(self._work) as mine:
            if not mine:
                return Refusal(f"another conversion is at work in {self._work}.", "Wait for it, or give another --out.")
            made = self._convert()
        if isinstance(made, Converted) and not self._wish.keep_work:
            shutil.rmtree(self._work, ignore_errors=True)
        return made

    def _refuse(self) -> Refusal | None:
        wish = self._wish
        if wish.precision == "w4a16" and wish.method != "rtn" and not wish.calibration:
            return Refusal(f"{wish.method} needs calibration samples.", "Pass --calibration FILE.jsonl.")
        if wish.out.exists() and any(wish.out.iterdir()) and not (wish.out / blessing.FILE).exists():
            return Refusal(f"{wish.out} holds something that `spillway convert` didn't write.", "Give another --out.")
        return None

    def _convert(self) -> Converted | Refusal:
        origin = {"sha256": digest(self._source.path)} if self._source.is_gguf else contents(self._source.path)
        unpacked = self._unpacked(origin) if self._source.is_gguf else ({}, self._source.path)
        if isinstance(unpacked, Refusal):
            return unpacked
        facts, reference = unpacked
        candidate, recipe = reference, {"method": "none", "dtype": facts.get("dtype")}
        if self._wish.precision == "w4a16":
            candidate = self._work / "quantised"
            made = self._quantised(reference, candidate)
            if isinstance(made, Refusal):
                return made
            recipe = {**made, "dtype": facts.get("dtype")}
        verdict = self._verdict(reference, candidate)
        if isinstance(verdict, Refusal):
            return verdict
        about = {"file": self._source.path.name, **{k: v for k, v in facts.items() if k != "chat_template"}}
        if self._source.is_gguf:
            about |= origin
        return self._finish(candidate, verdict, about, recipe)

    def _unpacked(self, origin: dict[str, str]) -> tuple[dict[str, Any], Path] | Refusal:
        """GGUF -> a 16-bit checkpoint in the work folder."""
        wish, folder = self._wish, self._work / "unpacked"
        tokenizer = str(wish.tokenizer.absolute()) if wish.tokenizer else None
        job: dict[str, Any] = {"job": "inspect", "gguf": str(self._source.path), "tokenizer": tokenizer}
        step = ConversionStep("inspect", {**origin, "tokenizer": tokenizer}, None, 0)
        facts = self._ledger.run(step, lambda progress: self._worker.run(job, progress))
        if isinstance(facts, Refusal):
            return facts
        template = ("", "the given tokenizer's")
        if not (tokenizer and wish.template is None):
            chosen = templates.choose(wish.template, self._source.template, facts["chat_template"])
            if isinstance(chosen, Refusal):
                return chosen
            template = chosen
        facts |= {"dtype": wish.dtype or facts["dtype"], "template": template[1]}
        job |= {"job": "unpack", "folder": str(folder), "dtype": facts["dtype"], "template": template[0]}
        job |= {"stops": list(self._source.stops), "shard_bytes": wish.shard_bytes}
        inputs = {**origin, **{k: v for k, v in job.items() if k not in ("gguf", "folder")}}
        step = ConversionStep("unpack", inputs, folder, facts["parameters"] * _BYTES[facts["dtype"]])
        done = self._ledger.run(step, lambda progress: self._worker.run(job, progress))
        return done if isinstance(done, Refusal) else (facts, folder)

    def _quantised(self, reference: Path, folder: Path) -> dict[str, Any] | Refusal:
        wish = self._wish
        job: dict[str, Any] = {"job": "quantise", "source": str(reference), "folder": str(folder)}
        job |= {"method": wish.method, "group_size": wish.group_size, "calibration": list(wish.calibration)}
        size = sum(blessing.weight_sizes(reference).values())
        inputs = {**contents(reference), **{k: v for k, v in job.items() if k not in ("source", "folder")}}

        def work(progress: Any) -> dict[str, Any] | Refusal:
            shutil.rmtree(folder, ignore_errors=True)
            return self._worker.run(job, progress)

        return self._ledger.run(ConversionStep("quantise", inputs, folder, size * 6 // 10), work)

    def _judged(self, name: str, folder: Path) -> dict[str, Any] | Refusal:
        job: dict[str, Any] = {"job": "judge", "folder": str(folder), "samples": list(self._wish.samples)}
        job |= {"answer_tokens": self._wish.answer_tokens}
        inputs = {**contents(folder), "samples": job["samples"], "answer_tokens": job["answer_tokens"]}
        return self._ledger.run(ConversionStep(name, inputs, None, 0), lambda progress: self._worker.run(job, progress))

    def _verdict(self, reference: Path, candidate: Path) -> gate.GateVerdict | Refusal:
        first = self._judged("judge-reference", reference)
        if isinstance(first, Refusal):
            return first
        second = first if candidate == reference else self._judged("judge-result", candidate)
        if isinstance(second, Refusal):
            return second
        llama = self._judged_by_llama(first)
        if isinstance(llama, Refusal):
            return llama
        known = tuple(sample.get("answer") for sample in self._wish.samples)
        return gate.decide(known, _judged(first), _judged(second), llama, self._wish.bounds)

    def _judged_by_llama(self, first: dict[str, Any]) -> EngineOutput | Refusal | None:
        if self._llama is None or not self._source.is_gguf:
            return None
        python = self._llama
        job: dict[str, Any] = {
            "gguf": str(self._source.path),
            "prompts": first["prompts"],
            "answer_tokens": self._wish.answer_tokens,
        }
        job |= {"answers": [sample.get("answer") or "" for sample in self._wish.samples]}
        inputs = {"gguf": digest(self._source.path), **{k: v for k, v in job.items() if k != "gguf"}}
        made = self._ledger.run(
            ConversionStep("judge-llama", inputs, None, 0), lambda _progress: llama_judge(python, job)
        )
        return made if isinstance(made, Refusal) else _judged(made)

    def _finish(
        self, candidate: Path, verdict: gate.GateVerdict, about: dict[str, Any], recipe: dict[str, Any]
    ) -> Converted:
        """Put the checkpoint and its verdict in place."""
        staged = self._work / "result"
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(candidate, staged, copy_function=_linked)
        sizes = blessing.weight_sizes(staged)
        written = blessing.Blessing(verdict.blessed, verdict.reasons, verdict.figures, about, recipe, sizes)
        blessing.write(staged, written)
        for weights in staged.glob("*.safetensors"):
            # safetensors writes them for their owner only; the engine may be another user's.
            weights.chmod((staged / blessing.FILE).stat().st_mode)
        out = self._wish.out.absolute()
        shutil.rmtree(out, ignore_errors=True)
        staged.replace(out)
        return Converted(out, written)


def _judged(found: dict[str, Any]) -> EngineOutput:
    return EngineOutput(found["perplexity"], tuple(found["answers"]))


def _linked(source: str, target: str) -> None:
    """A second name for the same bytes where the disk can do that, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this process is the only one at work in the folder, for as long as the block lasts."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
