"""Send documents to a running router and compare its replies with the truth."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evidence.documents.corpus import CorpusDocument
from spillway_router.testing.harness import Router

_AT_ONCE = 16
_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A document, whether it was answered without a person, by which parser or model, and whether a value was wrong.

    A document without a truth (another kind, or two eyes and no word which) is wrong if it is answered at all.
    """

    document: CorpusDocument
    answered: bool
    by: str
    wrong: bool


@dataclass(slots=True)
class Count:
    """Documents, those answered, and those answered wrong."""

    n: int = 0
    answered: int = 0
    wrong: int = 0
    by: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.n += 1
        self.answered += outcome.answered
        self.wrong += outcome.wrong
        if outcome.answered:
            self.by[outcome.by] += 1


async def outcomes(router: Router, documents: Sequence[CorpusDocument]) -> list[Outcome]:
    """Read documents through a router, in order."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def read(document: CorpusDocument) -> Outcome:
        async with turn:
            body = {"text": document.text, "schema": "biometry", "review": False}
            reply = await router.client.post("/v1/documents/extract", json=body, timeout=_LIMIT_S)
        reply.raise_for_status()
        return outcome_of(document, reply.json())

    return list(await asyncio.gather(*map(read, documents)))


def outcome_of(document: CorpusDocument, reply: Mapping[str, Any]) -> Outcome:
    """Judge one reply."""
    answered = reply["status"] == "answered"
    by = f"{reply['step']}: {reply['read_by']['model']}" if answered else ""
    return Outcome(document, answered, by, answered and reply["values"] != document.truth)


def counts(results: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Count by kind of document, arrangement, language and damage."""
    table: dict[str, Count] = {}
    for outcome in results:
        document = outcome.document
        names = ["all", f"kind: {document.kind}", "damaged" if document.damaged else "clean"]
        if document.kind == "biometry":
            names += [f"arrangement: {document.arrangement}", f"language: {document.language}"]
        if document.truth is None and document.kind == "biometry":
            names.append("two eyes and no word which")
        for name in names:
            table.setdefault(name, Count()).add(outcome)
    return {
        name: {"n": c.n, "answered": c.answered, "wrong": c.wrong, "by": dict(c.by)}
        for name, c in sorted(table.items())
    }
