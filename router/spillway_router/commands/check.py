"""`spillway check`: validate the configuration and everything that it refers to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router import compiled
from spillway_router.commands.common import ConfigOption, JsonOption, all_problems, fail, load, say
from spillway_router.config import load as config
from spillway_router.config.checkup import CheckReport, checked
from spillway_router.config.load import ConfigError

if TYPE_CHECKING:
    from spillway_router.config.assemble import Assembly
    from spillway_router.config.load import Loaded
    from spillway_router.config.reachability import Reach

LiteLLMOption = Annotated[
    Path | None,
    typer.Option("--from-litellm", help="Convert a LiteLLM config.yaml, and print the spillway.yaml instead."),
]


_STATES = {"reachable": "ready", "refused": "unreachable", "unknown": "unreachable", "unauthorized": "unauthorized"}
FingerprintOption = Annotated[
    str | None,
    typer.Option(help="Print the `fingerprint` of a model (folder, hub name, demo) for its backend instead."),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with 1 also if a backend is disabled or unreachable.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Ask no other machine: no backend, no cache, no database server.")
]


def check(
    path: ConfigOption = None,
    from_litellm: LiteLLMOption = None,
    fingerprint: FingerprintOption = None,
    offline: OfflineOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Validate the configuration, keys, prices, the ledger and the reachability of backends; report every error and its
    fix."""
    if from_litellm is not None:
        _convert_litellm(from_litellm, as_json)
        return
    if fingerprint is not None:
        _print_fingerprint(fingerprint, as_json)
        return
    try:
        loaded = config.read(path) if as_json else load(path)
    except ConfigError as error:
        _print_json(CheckReport(list(all_problems(error))))
        raise typer.Exit(1) from None
    report, assembly = checked(loaded, offline)
    if as_json:
        _print_json(report)
    else:
        _print_text(report, loaded, assembly)
    if report.errors or (strict and report.lacks_backends):
        raise typer.Exit(1)


def _print_text(report: CheckReport, loaded: Loaded, assembly: Assembly | None) -> None:
    say(f"configuration: {loaded.path or 'defaults (no spillway.yaml found)'}")
    for word, rows in (("error", report.errors), ("disabled", report.disabled), ("warning", report.warnings)):
        for row in rows:
            say(f"  {word:<12} {row.in_file(loaded.path)}")
    if assembly is not None:
        _print_backends(assembly, report.reached)
    say(f"hot path: {compiled.state()}")
    typer.echo(_summary(report))


def _summary(report: CheckReport) -> str:
    """Return the last line: how many errors there are, and what else needs attention."""
    counts = {"error": len(report.errors), "warning": len(report.warnings), "disabled backend": len(report.disabled)}
    named = [f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items() if count]
    return ", ".join(named if report.errors else ["no errors", *named])


def _print_backends(assembly: Assembly, reached: Sequence[Reach]) -> None:
    reach_of = {reach.backend: reach for reach in reached}
    for name, target in assembly.targets.items():
        reach = reach_of.get(name)
        state = "ready" if reach is None else _STATES[reach.verdict]
        details = "" if reach is None else f", {reach.verdict} in {reach.ms:.0f} ms ({reach.detail})"
        kind = "local" if target.backend.local else "cloud"
        any_model = assembly.policy.any_model.get(name)
        model = target.backend.model if any_model is None else f"any of {len(any_model.names())} models with a price"
        say(f"  {state:<12} {name}: {kind}, {target.backend.provider}, {model}{details}")


def _print_json(report: CheckReport) -> None:
    lists = {"mistakes": report.errors, "off": report.disabled, "warnings": report.warnings}
    content: dict[str, Any] = {"ok": not report.errors}
    content |= {name: [asdict(problem) for problem in problems] for name, problems in lists.items()}
    content |= {"backends": [asdict(reach) for reach in report.reached], "hot_path": compiled.state()}
    typer.echo(json.dumps(content, indent=2))


def _print_fingerprint(model: str, as_json: bool) -> None:
    from spillway_router.commands.fingerprint import fingerprint_of
    from spillway_server import sources
    from spillway_server.obstacle import Obstacle
    from spillway_server.planning import hardware, models

    spec = models.resolve(model, hardware.detect(), sources.of_environment(force=True))
    if isinstance(spec, Obstacle):
        fail(f"{spec.reason} {spec.fix}")
    marks = fingerprint_of(spec).model_dump(exclude_none=True)
    if as_json:
        typer.echo(json.dumps({"fingerprint": marks}, indent=2))
    else:
        # In quotes, since YAML would read some marks as numbers.
        fields = ", ".join(f'{name}: "{mark}"' for name, mark in marks.items())
        say(f"fingerprint: {{{fields}}}")


def _convert_litellm(source: Path, as_json: bool) -> None:
    from spillway_router.commands.check_litellm import LiteLLMError, convert

    try:
        converted = convert(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, LiteLLMError) as error:
        fail(f"{source}: {error}")
    if as_json:
        typer.echo(json.dumps({"config": converted.settings, "notes": converted.notes}, indent=2))
        return
    typer.echo(converted.text, nl=False)
    typer.echo(
        f"{len(converted.settings['backends'])} backends converted, {len(converted.notes)} notes at the top", err=True
    )
