"""`python -m demo`: run the demo.

The exit status is 0 if every promise held, or failed for lack of time while other programs used the machine; 1 if one
did not hold, 2 if the demo could not run, 130 if it was interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from demo import accounts, product, show, stages
from demo.claims import Claim, DemoRun, DemoSlo, judge
from demo.client import DocumentResult
from demo.load import Clients
from demo.machine import CpuReading, others_share
from demo.processes import ChildError
from demo.workload import Sizes

_FAST = Sizes(capacity=48, calm=24, burst=300, check=40)
_PLAIN_WIDTH = 120
_BROKEN = 2
_INTERRUPTED = 130


def main(
    documents: Annotated[int, typer.Option(help="Documents in the burst.", min=50, max=9000)] = Sizes().burst,
    fast: Annotated[bool, typer.Option("--fast", help="Smaller phases and a burst of 300 documents.")] = False,
    seed: Annotated[int, typer.Option(help="Seed that selects the documents.", min=0, max=90)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and verdict to this file.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep config, ledger and logs in this folder.")] = None,
) -> None:
    """Run server, router and a fake cloud on real documents, and check the promises."""
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    sizes = _FAST if fast else Sizes(burst=documents)
    # Both signals end the demo in order; a shell that starts it in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with _folder(keep) as folder:
            run, pace, report = _demo(console, sizes, seed, folder)
    except (ChildError, accounts.AccountsError) as error:
        console.print(Text(f"The demo could not run: {error}", style="red"))
        raise SystemExit(_BROKEN) from error
    except KeyboardInterrupt:
        console.print("Interrupted; all started processes are stopped.")
        raise SystemExit(_INTERRUPTED) from None
    claims = judge(run)
    _show(console, run, claims, report)
    if json_file is not None:
        json_file.write_text(json.dumps(_evidence(run, claims, pace), indent=1) + "\n", encoding="utf-8")
    raise SystemExit(1 if any(claim.broken for claim in claims) else 0)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="spillway-demo-") as folder:
        yield Path(folder)


def _demo(console: Console, sizes: Sizes, seed: int, folder: Path) -> tuple[DemoRun, stages.Pace, str]:
    """Start everything, send everything, read the accounts, stop everything; return the run, its
    pace and the report.
    """
    started = time.monotonic()
    plan = stages.plan(sizes, seed)
    with product.cloud(folder, plan.all) as cloud:
        console.print(f"fake cloud at {cloud.url}")
        with product.product(folder, cloud) as running:
            results, pace, others = asyncio.run(_send_all(console, running, plan, sizes))
            books = accounts.read(running, cloud)
            report = accounts.report_text(running, console.width)
            with show.waiting(console, "stopping in order"):
                status, left = running.child.stop(product.STOP_PATIENCE_S)
    total = time.monotonic() - started
    slo = DemoSlo(product.SLO_TTFT_MS / 1000, product.SLO_TPOT_MS / 1000)
    run = DemoRun(
        results=tuple(results),
        accounts=books,
        slo=slo,
        total_s=total,
        exit_status=status,
        left_over=left,
        others_share=others,
    )
    return run, pace, report


def _show(console: Console, run: DemoRun, claims: Sequence[Claim], report: str) -> None:
    show.phases(console, run)
    show.faults(console, run.results)
    show.accuracy(console, run.of("calm", "burst"))
    console.rule("spillway report", align="left")
    console.print(Text.from_ansi(report.rstrip()), soft_wrap=True)
    console.rule()
    show.verdict(console, claims)
    excused = [claim.name for claim in claims if claim.excused]
    if excused:
        console.print(
            f"[yellow]Other programs used {run.others_share:.0%} of this machine's CPU meanwhile, so these failures "
            f"prove nothing: {', '.join(excused)}. Run the demo again on a quiet machine.[/]"
        )
    broken = [claim.name for claim in claims if claim.broken]
    if broken:
        console.print(f"[red]Broken promises: {', '.join(broken)}[/]")
    else:
        console.print(f"[green]Every {'other ' if excused else ''}promise held.[/]")


async def _send_all(
    console: Console, running: product.Product, plan: stages.DocumentPlan, sizes: Sizes
) -> tuple[list[DocumentResult], stages.Pace, float]:
    """Send all documents. Return their results, the pace, and the CPU share of other programs during calm and burst."""
    async with Clients(running.url) as clients:
        await stages.router_up(console, clients, running.child)
        console.print(f"router at {running.url}")
        results = await stages.warming(console, clients, plan.warming)
        await stages.engine_up(console, clients, running.child, plan.capacity[0])
        alone, pace = await stages.capacity(console, clients, plan.capacity)
        results += alone
        before = CpuReading.now()
        results += await stages.timed(console, clients, "calm", plan.calm, pace.calm)
        results += await stages.timed(console, clients, "burst", plan.burst, pace.burst)
        others = others_share(before, CpuReading.now(), os.cpu_count() or 1)
        results += await stages.second_look(console, clients, results, sizes.check)
        return results, pace, others


def _evidence(run: DemoRun, claims: Sequence[Claim], pace: stages.Pace) -> dict[str, Any]:
    rows = [
        {
            "phase": r.job.phase,
            "due_s": round(r.job.at_s, 3),
            "noise": r.job.noise,
            "private": r.job.private,
            "stream": r.job.stream,
            "status": r.status,
            "fault": r.fault,
            "decision": r.decision,
            "reasons": r.reasons,
            "backend": r.backend,
            "confidence": r.confidence,
            "tokens": r.tokens,
            "overhead_s": r.overhead_s,
            "refusals": r.refusals,
            "served_s": round(r.served_s, 4),
            "done_s": round(r.done_s, 4),
            "right": r.right,
        }
        for r in run.results
    ]
    books = {**asdict(run.accounts), "seen": len(run.accounts.seen)}
    return {
        "holds": not any(claim.broken for claim in claims),
        "others_share": round(run.others_share, 3),
        "total_s": round(run.total_s, 2),
        "slo": asdict(run.slo),
        "documents_per_s": asdict(pace),
        "claims": [asdict(claim) for claim in claims],
        "accounts": books,
        "documents": rows,
    }


if __name__ == "__main__":
    typer.run(main)
