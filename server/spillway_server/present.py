"""Render plans, checks and supervisor events on a terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any, NoReturn

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from spillway_server.doctor import Check, CheckStatus
from spillway_server.engine import events
from spillway_server.obstacle import Obstacle
from spillway_server.planning.memory import Row
from spillway_server.planning.plan import EnginePlan
from spillway_server.planning.speed import Speed

_COLOURS = {CheckStatus.OK: "green", CheckStatus.WARN: "yellow", CheckStatus.FAIL: "red"}
_DIGITS = {"GiB": ",.2f", "KiB": ",.1f"}


def amount(row: Row) -> str:
    """Return a row's number with its unit."""
    if row.unit == "GiB" and 0 < row.value < 0.1:
        return f"{row.value * 1024:,.1f} MiB"
    return f"{row.value:{_DIGITS.get(row.unit, ',.0f')}} {row.unit}"


def plan_view(plan: EnginePlan, command: tuple[str, ...], speed: Speed | None = None) -> RenderableType:
    """Render the plan: a table of memory arithmetic, its speed, its warnings and the command line."""
    table = Table(title=f"{plan.model.location} on {plan.profile.title}", title_justify="left")
    table.add_column("memory")
    table.add_column("amount", justify="right")
    table.add_column("how")
    for row in plan.rows:
        table.add_row(row.label, amount(row), row.how)
    table.add_row("longest request", f"{plan.max_model_len:,} tokens", "prompt and answer together")
    parts: list[RenderableType] = [table, speed_view(speed)]
    parts += [f"[yellow]warning[/] {escape(warning)}" for warning in plan.warnings]
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in plan.env)
    parts += ["", escape(f"{words} {shlex.join(command)}")]
    return Group(*parts)


def speed_view(speed: Speed | None) -> RenderableType:
    """Render the speed and how it is known."""
    if speed is None:
        return "speed: unknown, nothing like it was measured; run `python -m loadtests.gpu_profile measure --save`"
    table = Table(title=f"speed, {speed.basis}", title_justify="left")
    for heading in ("speed", "amount", "how"):
        table.add_column(heading, justify="right" if heading == "amount" else "left")
    for row in speed.rows():
        table.add_row(row.label, f"{row.value:,.4g} {row.unit}" if row.value < 1000 else amount(row), row.how)
    return table


def plan_json(plan: EnginePlan, command: tuple[str, ...], speed: Speed | None = None) -> dict[str, Any]:
    """Return the plan as plain data; `speed` is null where it is unknown."""
    return {
        "device": {"key": plan.profile.key, "title": plan.profile.title, "memory_bytes": plan.profile.memory_bytes},
        "model": dataclasses.asdict(plan.model),
        "served_model": plan.served_name,
        "command": list(command),
        "env": dict(plan.env),
        "memory": [dataclasses.asdict(row) for row in plan.rows],
        "kv_tokens": plan.kv_tokens,
        "max_model_len": plan.max_model_len,
        "warnings": list(plan.warnings),
        "speed": None if speed is None else {**dataclasses.asdict(speed), "work_us": speed.work_us()},
    }


def doctor_view(checks: tuple[Check, ...]) -> RenderableType:
    """Render the doctor's checks as a table."""
    table = Table()
    for heading in ("check", "", "found", "what to do"):
        table.add_column(heading)
    for check in checks:
        status = f"[{_COLOURS[check.verdict]}]{check.verdict}[/]"
        table.add_row(check.name, status, escape(check.seen), escape(check.fix))
    return table


def end_at_obstacle(obstacle: Obstacle, as_json: bool) -> NoReturn:
    """Print an obstacle as two lines on standard error, also as JSON on standard output if asked, and exit 1."""
    if as_json:
        print(json.dumps({"refused": dataclasses.asdict(obstacle)}), flush=True)  # one line: `serve` prints lines
    message = f"[red]{escape(obstacle.reason)}[/]\n{escape(obstacle.fix)}"
    Console(stderr=True).print(message, soft_wrap=True)
    raise typer.Exit(1)


def event_line(event: events.EngineEvent) -> str:
    """Return one supervisor event as text."""
    match event:
        case events.EngineStarting(attempt, argv, log_path):
            retry = f" (attempt {attempt})" if attempt > 1 else ""
            return f"starting vLLM{retry}, usually 30 to 90 s; its log is {log_path}\n  {shlex.join(argv)}"
        case events.EngineProgress(phase, elapsed):
            return f"{elapsed:5.1f} s  {phase}"
        case events.EngineReady(base_url, model, elapsed, uds):
            address = f"Unix socket {uds}" if uds else base_url
            return f"{elapsed:5.1f} s  ready: {model} at {address}"
        case events.EngineUnready(why):
            return f"not ready: {why}"
        case events.EngineDraining(in_flight):
            return f"draining: {'an unknown number of' if in_flight is None else in_flight} requests in flight"
        case events.EngineExited(_, diagnosis, _):
            return f"{diagnosis.reason} {diagnosis.fix}"
        case events.EngineRestarting(wait, failures):
            return f"restarting in {wait:.1f} s (failures in a row: {failures})"
        case events.EngineStopped():
            return "stopped"
        case events.EngineFailed(diagnosis, tail):
            last = "\n".join(f"  | {line}" for line in tail[-15:])
            return f"giving up on the engine. {diagnosis.reason} {diagnosis.fix}\n{last}"


def event_json(event: events.EngineEvent) -> dict[str, Any]:
    """Return one supervisor event as plain data, with its kind in `event`."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def show_event(console: Console, event: events.EngineEvent) -> None:
    """Print one supervisor event."""
    console.print(escape(event_line(event)), highlight=False, soft_wrap=True)
