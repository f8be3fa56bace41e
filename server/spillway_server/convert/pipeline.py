"""The conversion from start to end: inspect -> unpack -> quantise -> judge -> verdict. Each step can be resumed.

Intermediate files are in `OUT.work` beside the result until the verdict is written; one rename makes the result appear
whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spillway_server.convert import gate, templates
from spillway_server.convert.environment import Worker, llama_judge
from spillway_server.convert.gate import Bounds, EngineOutput
from spillway_server.convert.source import ModelSource
from spillway_server.convert.steps import ConversionStep, OnStepEvent, StepMarkers, contents, digest
from spillway_server.obstacle import Obstacle
from spillway_server.planning import verification

METHODS = ("rtn", "gptq", "awq")
PRECISIONS = ("auto", "w4a16", "w8a16", "16bit")
DTYPES = ("float16", "bfloat16", "float32")
# float16 and bfloat16 take 2 bytes; W4A16 with groups of 32 takes 0.56 and keeps embeddings at 2.
_PLAIN = ("F32", "F16", "BF16")
_GPTQ = "4 bit, gptq"
LARGEST_FOR_GPTQ: Mapping[bool, int] = MappingProxyType({True: 6_000_000_000, False: 100_000_000})
"""Bytes of the 16-bit weights up to which the ladder tries GPTQ, with a GPU and without one. It holds the whole model
in memory, and 135 million weights take more than a quarter of an hour on two cores."""
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """How to convert.

    `precision` is one of PRECISIONS; `auto` climbs from 4 bits until the gate holds, by way of GPTQ where there are
    `calibration` samples and the model is not too large, and of 8 bits if `eight_bit` allows them (vLLM on a CPU has no
    such kernel). `has_gpu` is whether this machine can calibrate on one. `template` is a name or Jinja text;
    `tokenizer` is a directory that replaces the file's own tokenizer; `samples` and `calibration` are as samples.py
    reads them; `group_size` None takes the largest that fits; `shard_bytes` limits the size of an unpacked file.
    """

    out: Path
    precision: str = "w4a16"
    eight_bit: bool = True
    method: str = "rtn"
    group_size: int | None = None
    dtype: str | None = None
    template: str | None = None
    tokenizer: Path | None = None
    samples: tuple[dict[str, Any], ...] = ()
    calibration: tuple[dict[str, Any], ...] = ()
    has_gpu: bool = False
    answer_tokens: int = 120
    bounds: Bounds = field(default_factory=Bounds)
    keep_work: bool = False
    shard_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """The result: its folder, and the verdict that is written beside the model."""

    folder: Path
    verdict: verification.Verification


@dataclass(frozen=True, slots=True)
class _Rung:
    """A checkpoint of the ladder: its folder, how it was made, and its verdict."""

    folder: Path
    recipe: dict[str, Any]
    verdict: gate.GateVerdict


def _row(name: str, size: int, plain: int, verdict: gate.GateVerdict) -> dict[str, Any]:
    """Return what one rung costs: the bytes of its weights, and how many tokens a second it gives of the 16-bit model's
    where memory bandwidth decides (single answers on a GPU)."""
    ratio = verdict.figures.get("perplexity_ratio")
    return {
        "precision": name,
        "weight_bytes": size,
        "times_as_fast_as_16_bit": round(plain / size, 2) if size else None,
        "perplexity_ratio": None if ratio is None else round(ratio, 4),
        "verified": verdict.verified,
        "reasons": list(verdict.reasons),
    }


def _left_out(name: str, why: Obstacle) -> dict[str, Any]:
    """Return the row of a rung that could not be made, which ends no climb: the next rung needs less."""
    return {
        "precision": name,
        "weight_bytes": 0,
        "times_as_fast_as_16_bit": None,
        "perplexity_ratio": None,
        "verified": False,
        "reasons": [why.reason],
    }


class Conversion:
    """One conversion: `run` carries out the steps that an earlier run did not finish."""

    def __init__(
        self, source: ModelSource, options: ConversionOptions, worker: Worker, llama: Path | None, on_event: OnStepEvent
    ) -> None:
        self._source = source
        self._options = options
        self._worker = worker
        self._llama = llama
        self._work = options.out.absolute().with_name(options.out.name + ".work")
        self._markers = StepMarkers(self._work / "markers", on_event)
        self._bounds = options.bounds
        self._reference: tuple[EngineOutput, EngineOutput | None] | None = None
        self.has_experts = False
        """Whether the file is a mixture of experts, once it is unpacked."""

    def run(self) -> Converted | Obstacle:
        """Convert, or return why that is not possible; finished steps are kept for the next run."""
        obstacle = self._refuse()
        if obstacle:
            return obstacle
        self._work.mkdir(parents=True, exist_ok=True)
        with _exclusive(self._work) as acquired:
            if not acquired:
                return Obstacle(
                    f"another conversion is running in {self._work}.", "Wait for it, or choose another --out."
                )
            result = self._convert()
        if isinstance(result, Converted) and not self._options.keep_work:
            shutil.rmtree(self._work, ignore_errors=True)
        return result

    def _refuse(self) -> Obstacle | None:
        options = self._options
        if options.precision == "w4a16" and options.method != "rtn" and not options.calibration:
            return Obstacle(f"{options.method} needs calibration samples.", "Pass --calibration FILE.jsonl.")
        if options.out.exists() and any(options.out.iterdir()) and not (options.out / verification.FILE).exists():
            return Obstacle(
                f"{options.out} holds something that `spillway convert` didn't write.", "Choose another --out."
            )
        return None

    def _convert(self) -> Converted | Obstacle:
        origin = {"sha256": digest(self._source.path)} if self._source.is_gguf else contents(self._source.path)
        unpacked = self._unpack(origin) if self._source.is_gguf else ({}, self._source.path)
        if isinstance(unpacked, Obstacle):
            return unpacked
        facts, reference = unpacked
        if facts.get("experts") and self._options.precision in ("w4a16", "w8a16"):
            return Obstacle(
                "4- and 8-bit weights of a mixture of experts are not made here.",
                "Convert with --precision 16bit, or serve a checkpoint that its publisher quantised.",
            )
        self.has_experts = bool(facts.get("experts"))
        climbed = self._climb(reference)
        if isinstance(climbed, Obstacle):
            return climbed
        candidate, verdict = climbed.folder, climbed.verdict
        recipe = {**climbed.recipe, "dtype": facts.get("dtype")}
        about = {"file": self._source.path.name, **{k: v for k, v in facts.items() if k != "chat_template"}}
        if self._source.is_gguf:
            about |= origin
        return self._finish(candidate, verdict, about, recipe)

    def _unpack(self, origin: dict[str, str]) -> tuple[dict[str, Any], Path] | Obstacle:
        """Unpack the GGUF into a 16-bit checkpoint in the work folder; return the file's facts and the folder."""
        options, folder = self._options, self._work / "unpacked"
        tokenizer = str(options.tokenizer.absolute()) if options.tokenizer else None
        job: dict[str, Any] = {"job": "inspect", "gguf": str(self._source.path), "tokenizer": tokenizer}
        step = ConversionStep("inspect", {**origin, "tokenizer": tokenizer}, None, 0)
        facts = self._markers.run(step, lambda progress: self._worker.run(job, progress))
        if isinstance(facts, Obstacle):
            return facts
        template = ("", "the given tokenizer's")
        if options.template is not None or not templates.brought_by(options.tokenizer):
            chosen = templates.choose(options.template, self._source.template, facts["chat_template"])
            if isinstance(chosen, Obstacle):
                return chosen
            template = chosen
        if facts["quantisation"] not in _PLAIN:
            # llama.cpp rounds activations to 8 bits beside quantised weights, so that long answers part at near ties;
            # its perplexity still proves the unpacking.
            self._bounds = replace(options.bounds, min_agreement=0.0)
        facts |= {"dtype": options.dtype or facts["dtype"], "template": template[1]}
        job |= {"job": "unpack", "folder": str(folder), "dtype": facts["dtype"], "template": template[0]}
        job |= {"stops": list(self._source.stops), "shard_bytes": options.shard_bytes}
        inputs = {**origin, **{k: v for k, v in job.items() if k not in ("gguf", "folder")}}
        step = ConversionStep("unpack", inputs, folder, facts["parameters"] * _BYTES[facts["dtype"]])
        done = self._markers.run(step, lambda progress: self._worker.run(job, progress))
        return done if isinstance(done, Obstacle) else (facts, folder)

    def _climb(self, reference: Path) -> _Rung | Obstacle:
        """Judge the rungs that the precision names, until one has no fault of its own; return the last that was judged.

        Where the reference itself fails (too few samples, none of its kind), no rung can pass; its reasons are then no
        fault of a rung, and a loss of quality still is.
        """
        first: gate.GateVerdict | None = None
        ladder: list[dict[str, Any]] = []
        plain = sum(verification.weight_sizes(reference).values())
        rung: _Rung | None = None
        for name in self.rungs(plain):
            checkpoint = self._rung(name, reference)
            if isinstance(checkpoint, Obstacle) and name == _GPTQ:
                ladder.append(_left_out(name, checkpoint))
                continue
            if isinstance(checkpoint, Obstacle):
                return checkpoint
            folder, recipe = checkpoint
            judged = self._verdict(reference, reference) if first is None else first
            if isinstance(judged, Obstacle):
                return judged
            first = judged
            verdict = first if folder == reference else self._verdict(reference, folder)
            if isinstance(verdict, Obstacle):
                return verdict
            size = sum(verification.weight_sizes(folder).values())
            ladder.append(_row(name, size, plain, verdict))
            rung = _Rung(folder, {**recipe, "ladder": ladder}, verdict)
            if set(verdict.reasons) <= set(first.reasons):
                break
        assert rung is not None, "every precision has a rung"
        return rung

    def _step_of(self, candidate: Path) -> str:
        return f"judge-{candidate.name}" if self._options.precision == "auto" else "judge-result"

    def rungs(self, plain_bytes: int) -> tuple[str, ...]:
        """Return the precisions to try in this order, by the size of the 16-bit weights."""
        options = self._options
        if options.precision != "auto":
            return (options.precision,)
        if self.has_experts:
            return ("16bit",)
        gptq = (_GPTQ,) if options.calibration and plain_bytes <= LARGEST_FOR_GPTQ[options.has_gpu] else ()
        return ("4 bit", *gptq, *(("w8a16",) if options.eight_bit else ()), "16bit")

    def _rung(self, name: str, reference: Path) -> tuple[Path, dict[str, Any]] | Obstacle:
        """Make the checkpoint of one rung; return its folder and its recipe."""
        if name == "16bit":
            return reference, {"method": "none"}
        folder = self._work / {"w4a16": "quantised", _GPTQ: "gptq"}.get(name, f"carried-{name.replace(' ', '')}")
        if name == "w4a16":
            recipe = self._quantise(reference, folder, self._options.method)
        elif name == _GPTQ:
            recipe = self._quantise(reference, folder, "gptq")
        else:
            recipe = self._carry(reference, folder, 8 if name == "w8a16" else 4)
        return recipe if isinstance(recipe, Obstacle) else (folder, recipe)

    def _carry(self, reference: Path, folder: Path, bits: int) -> dict[str, Any] | Obstacle:
        gguf = str(self._source.path) if self._source.is_gguf else None
        job: dict[str, Any] = {"job": "carry", "source": str(reference), "folder": str(folder), "bits": bits}
        size = sum(verification.weight_sizes(reference).values())
        inputs = {**contents(reference), "bits": bits, "gguf": gguf}

        def work(progress: Any) -> dict[str, Any] | Obstacle:
            shutil.rmtree(folder, ignore_errors=True)
            return self._worker.run({**job, "gguf": gguf}, progress)

        return self._markers.run(ConversionStep(f"carry-{bits}", inputs, folder, size * 6 // 10), work)

    def _quantise(self, reference: Path, folder: Path, method: str) -> dict[str, Any] | Obstacle:
        options = self._options
        job: dict[str, Any] = {"job": "quantise", "source": str(reference), "folder": str(folder)}
        calibration = [] if method == "rtn" else list(options.calibration)
        job |= {"method": method, "group_size": options.group_size, "calibration": calibration}
        size = sum(verification.weight_sizes(reference).values())
        inputs = {**contents(reference), **{k: v for k, v in job.items() if k not in ("source", "folder")}}

        def work(progress: Any) -> dict[str, Any] | Obstacle:
            shutil.rmtree(folder, ignore_errors=True)
            return self._worker.run(job, progress)

        return self._markers.run(ConversionStep("quantise", inputs, folder, size * 6 // 10), work)

    def _judge(self, name: str, folder: Path) -> dict[str, Any] | Obstacle:
        job: dict[str, Any] = {"job": "judge", "folder": str(folder), "samples": list(self._options.samples)}
        job |= {"answer_tokens": self._options.answer_tokens}
        inputs = {**contents(folder), "samples": job["samples"], "answer_tokens": job["answer_tokens"]}
        return self._markers.run(
            ConversionStep(name, inputs, None, 0), lambda progress: self._worker.run(job, progress)
        )

    def _verdict(self, reference: Path, candidate: Path) -> gate.GateVerdict | Obstacle:
        if self._reference is None:
            judged = self._judge("judge-reference", reference)
            if isinstance(judged, Obstacle):
                return judged
            llama = self._judge_by_llama(judged)
            if isinstance(llama, Obstacle):
                return llama
            self._reference = (_output(judged), llama)
        first, llama = self._reference
        second = first
        if candidate != reference:
            figures = self._judge(self._step_of(candidate), candidate)
            if isinstance(figures, Obstacle):
                return figures
            second = _output(figures)
        expected = tuple(sample.get("answer") for sample in self._options.samples)
        return gate.decide(expected, first, second, llama, self._bounds)

    def _judge_by_llama(self, first: dict[str, Any]) -> EngineOutput | Obstacle | None:
        if self._llama is None or not self._source.is_gguf:
            return None
        python = self._llama
        job: dict[str, Any] = {
            "gguf": str(self._source.path),
            "prompts": first["prompts"],
            "answer_tokens": self._options.answer_tokens,
        }
        job |= {"answers": [sample.get("answer") or "" for sample in self._options.samples]}
        inputs = {"gguf": digest(self._source.path), **{k: v for k, v in job.items() if k != "gguf"}}
        step = ConversionStep("judge-llama", inputs, None, 0)
        figures = self._markers.run(step, lambda _progress: llama_judge(python, job))
        return figures if isinstance(figures, Obstacle) else _output(figures)

    def _finish(
        self, candidate: Path, verdict: gate.GateVerdict, about: dict[str, Any], recipe: dict[str, Any]
    ) -> Converted:
        """Put the checkpoint and its verdict in the output folder."""
        staged = self._work / "result"
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(candidate, staged, copy_function=_link_or_copy)
        sizes = verification.weight_sizes(staged)
        record = verification.Verification(
            verified=verdict.verified,
            reasons=verdict.reasons,
            figures=verdict.figures,
            source=about,
            recipe=recipe,
            weights=sizes,
        )
        verification.write(staged, record)
        for weights in staged.glob("*.safetensors"):
            # safetensors makes them readable by their owner only; the engine may run as another user.
            weights.chmod((staged / verification.FILE).stat().st_mode)
        out = self._options.out.absolute()
        shutil.rmtree(out, ignore_errors=True)
        staged.replace(out)
        return Converted(out, record)


def _output(figures: dict[str, Any]) -> EngineOutput:
    return EngineOutput(figures["perplexity"], tuple(figures["answers"]))


def _link_or_copy(source: str, target: str) -> None:
    """Create a hard link where the disk supports it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def _exclusive(folder: Path) -> Iterator[bool]:
    """Lock the folder while the block runs; yield False where another process holds the lock."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
