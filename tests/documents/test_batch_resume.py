"""A batch that is killed and resumed pays for no document twice, by the ledger and by the bill of a fake cloud."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from demo.product import CloudProcess, cloud
from demo.workload import DocumentJob
from tests.documents.command import command, rows
from tests.documents.papers import answer, with_odd_words

from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import LIMIT_S, local, routing, settings
from spillway_server.demo_model.documents import generate

COUNT, BEFORE, AT_ONCE = 12, 4, 3
PAPERS = [with_odd_words(generate(10_000_000 + i, "clean", "letter_en")) for i in range(COUNT)]
"""No parser knows their layout, so each is paid."""


def bill(standin: CloudProcess) -> dict[str, Any]:
    reply = httpx.get(f"{standin.root}/bill", headers={"authorization": f"Bearer {standin.key}"}, trust_env=False)
    statement: dict[str, Any] = reply.raise_for_status().json()
    return statement


async def killed(arguments: tuple[str, ...], target: Path, engine: FaultUpstream) -> None:
    """Run a batch until BEFORE lines are written and AT_ONCE more are in progress, then kill it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from spillway_router.cli import app; app()", *arguments,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(3 * LIMIT_S):
        while len(engine.seen) < BEFORE + AT_ONCE or len(target.read_bytes().splitlines()) < BEFORE:
            await asyncio.sleep(0.02)
    process.kill()
    await process.wait()


async def test_a_killed_batch_pays_for_no_document_twice(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    chats = [[{"role": "user", "content": f"Biometry report to JSON:\n{paper.text}"}] for paper in PAPERS]
    source.write_text("".join(json.dumps({"id": i, "messages": chat}) + "\n" for i, chat in enumerate(chats)))
    jobs = [
        DocumentJob(
            number=i, phase="calm", at_s=0.0, text=p.text, truth=p.truth, noise=p.noise, private=False, stream=False
        )
        for i, p in enumerate(PAPERS)
    ]
    with cloud(tmp_path, jobs) as standin:
        gate = asyncio.Event()
        strong = (
            f"{{name: strong, provider: groq, model: openai/gpt-oss-120b, base_url: '{standin.url}', "
            f"api_key: {standin.key}}}"
        )
        async with FaultUpstream(answer("none").after(gate)) as engine:
            engine.script.extend([answer("none")] * BEFORE)
            async with routing(settings(local(engine), strong), tmp_path) as router:
                arguments = (
                    "extract", "--batch", str(source), "--out", str(target), "--url", router.url,
                    "--concurrency", str(AT_ONCE),
                )  # fmt: skip
                await killed(arguments, target, engine)
                assert bill(standin)["requests"] == BEFORE
                gate.set()
                # Nobody waits for these documents any more, but they are read to the end, and paid once.
                async with asyncio.timeout(LIMIT_S):
                    while bill(standin)["requests"] < BEFORE + AT_ONCE:
                        await asyncio.sleep(0.02)
                status, out, err = await command(*arguments, "--json")
                assert status == 0, err
                assert json.loads(out)["results"] == COUNT - BEFORE
                results = {row["line"]: row["result"] for row in rows(target)}
                assert [results[i + 1]["values"] for i in range(COUNT)] == [paper.truth for paper in PAPERS]
                owed = bill(standin)
                assert owed["requests"] == COUNT
                assert len({line["sha256"] for line in owed["lines"]}) == COUNT
                charges = [e for one in results.values() for e in router.ledger.entries_of(one["id"])]
                assert sum(e.amount_nano for e in charges if e.kind == "charged") == owed["nano_usd"]
                assert router.ledger.open_reservations(0, 2**62) == ()
                assert len(engine.seen) == COUNT
