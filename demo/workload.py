"""The documents that the demo sends, with their truth, in phases, each with its moment, marks and form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spillway_server.demo_model.documents import HELD_OUT_SEEDS, canonical_json, generate

Phase = Literal["warming", "capacity", "calm", "burst", "check"]

NOISE_SHARES = (("clean", 0.50), ("light", 0.30), ("heavy", 0.20))
PRIVATE_SHARE = 0.06
STREAM_SHARE = 0.30


@dataclass(frozen=True, slots=True)
class DocumentJob:
    """One document to send. It is due `at_s` seconds after the start of its phase."""

    number: int
    phase: Phase
    at_s: float
    text: str
    truth: dict[str, object]
    noise: str
    private: bool
    stream: bool
    model: str = "auto"

    @property
    def answer(self) -> str:
        """Return the right answer as JSON text."""
        return canonical_json(self.truth)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Documents per phase."""

    warming: int = 6
    capacity: int = 96
    calm: int = 48
    burst: int = 900
    check: int = 80


def draw(phase: Phase, first: int, count: int, seed: int) -> list[DocumentJob]:
    """Draw `count` jobs with the held-out documents from number `first` on, all due at once; `seed` selects noise and
    marks.

    Only the phases "calm" and "burst" hold private and streamed documents.

    Raises:
        IndexError: there are not so many held-out seeds.
    """
    jobs = []
    for number in range(first, first + count):
        rng = random.Random(f"demo/{seed}/{number}")
        noise = rng.choices([name for name, _ in NOISE_SHARES], [share for _, share in NOISE_SHARES])[0]
        document = generate(HELD_OUT_SEEDS[seed * 10_000 + number], noise)
        mixed = phase in ("calm", "burst")
        jobs.append(
            DocumentJob(
                number=number,
                phase=phase,
                at_s=0.0,
                text=document.text,
                truth=document.truth,
                noise=noise,
                private=mixed and rng.random() < PRIVATE_SHARE,
                stream=mixed and rng.random() < STREAM_SHARE,
            )
        )
    return jobs


def arrive(jobs: Sequence[DocumentJob], per_s: float, seed: int) -> list[DocumentJob]:
    """Return the same jobs at the moments of a Poisson process with `per_s` arrivals per second."""
    rng = random.Random(f"arrivals/{seed}")
    moment, due = 0.0, []
    for job in jobs:
        moment += rng.expovariate(per_s)
        due.append(_at(job, moment))
    return due


def pinned(jobs: Sequence[DocumentJob], phase: Phase, model: str) -> list[DocumentJob]:
    """Return the same documents again, as whole answers from one named backend."""
    return [
        DocumentJob(
            number=job.number,
            phase=phase,
            at_s=0.0,
            text=job.text,
            truth=job.truth,
            noise=job.noise,
            private=False,
            stream=False,
            model=model,
        )
        for job in jobs
    ]


def _at(job: DocumentJob, moment: float) -> DocumentJob:
    return DocumentJob(
        number=job.number,
        phase=job.phase,
        at_s=moment,
        text=job.text,
        truth=job.truth,
        noise=job.noise,
        private=job.private,
        stream=job.stream,
        model=job.model,
    )
