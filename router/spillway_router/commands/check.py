"""`spillway check`: validate the configuration and everything that it refers to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router import compiled
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, open_ledger
from spillway_router.config import load as config
from spillway_router.config.load import ConfigError, ConfigProblem, ConfigRejected

if TYPE_CHECKING:
    from spillway_router.commands.reachability import Reach
    from spillway_router.config.assemble import Assembly
    from spillway_router.config.load import Loaded
    from spillway_router.config.settings import Settings

LiteLLMOption = Annotated[
    Path | None,
    typer.Option("--from-litellm", help="Convert a LiteLLM config.yaml, and print the spillway.yaml instead."),
]


_STATES = {"reachable": "ready", "refused": "unreachable", "unknown": "unreachable", "unauthorized": "unauthorized"}
FingerprintOption = Annotated[
    str | None,
    typer.Option(help="Print the `fingerprint` of a model (folder, hub name, demo) for its backend instead."),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Don't test whether the backends are reachable.")]


def check(
    path: ConfigOption = None,
    from_litellm: LiteLLMOption = None,
    fingerprint: FingerprintOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Validate the configuration, keys, prices, the ledger and the reachability of backends; report every error and its
    fix."""
    from spillway_router.commands.reachability import ask_all
    from spillway_router.config.assemble import assemble
    from spillway_router.config.documents import document_problems

    if from_litellm is not None:
        _convert_litellm(from_litellm, as_json)
        return
    if fingerprint is not None:
        _print_fingerprint(fingerprint, as_json)
        return
    try:
        loaded = config.read(path) if as_json else load(path)
    except ConfigError as error:
        _print_checked(error.problems, (), (), ())
        raise typer.Exit(1) from None
    outcome = assemble(loaded.settings, loaded.environment, datetime.now(UTC).date())
    assembly = None if isinstance(outcome, ConfigRejected) else outcome
    mistakes = _located(loaded, outcome.problems if isinstance(outcome, ConfigRejected) else ())
    mistakes.extend(document_problems(loaded.settings))
    off = [] if assembly is None else _located(loaded, assembly.disabled)
    warnings = [] if assembly is None else _located(loaded, _warnings(loaded.settings, assembly))
    open_ledger(loaded).close()
    reached: tuple[Reach, ...] = () if offline or assembly is None else ask_all(assembly.targets.values())
    for one in reached:
        if one.fix:
            wrong = config.located(loaded.text, ConfigProblem(f"backends.{one.backend}", 0, f"is {one.sentence}"))
            (mistakes if one.verdict == "unauthorized" else warnings).append(wrong)
    if as_json:
        _print_checked(mistakes, off, warnings, reached)
    else:
        typer.echo(f"configuration: {loaded.path or 'defaults (no spillway.yaml found)'}")
        for word, rows in (("error", mistakes), ("disabled", off), ("warning", warnings)):
            for row in rows:
                typer.echo(f"  {word:<12} {row}")
        if assembly is not None:
            _print_backends(assembly, reached)
        typer.echo(f"hot path: {compiled.state()}")
        typer.echo("no errors" if not mistakes else f"{len(mistakes)} error{'s' * (len(mistakes) > 1)}")
    if mistakes:
        raise typer.Exit(1)


def _located(loaded: Loaded, problems: Sequence[ConfigProblem]) -> list[ConfigProblem]:
    return [config.located(loaded.text, problem) for problem in problems]


def _warnings(settings: Settings, assembly: Assembly) -> tuple[ConfigProblem, ...]:
    from spillway_router.config.confidence import served_models, unverified

    local = {backend.name: backend for backend in assembly.backends if backend.local}
    return (*assembly.warnings, *unverified(assembly.scoring, served_models(settings.backends, local)))


def _print_backends(assembly: Assembly, reached: Sequence[Reach]) -> None:
    asked = {one.backend: one for one in reached}
    for name, place in assembly.targets.items():
        one = asked.get(name)
        word = "ready" if one is None else _STATES[one.verdict]
        how = "" if one is None else f", {one.verdict} in {one.ms:.0f} ms ({one.detail})"
        kind = "local" if place.backend.local else "cloud"
        typer.echo(f"  {word:<12} {name}: {kind}, {place.backend.provider}, {place.backend.model}{how}")


def _print_checked(
    mistakes: Sequence[ConfigProblem],
    off: Sequence[ConfigProblem],
    warnings: Sequence[ConfigProblem],
    reached: Sequence[Reach],
) -> None:
    told = {"mistakes": mistakes, "off": off, "warnings": warnings}
    answer = {"ok": not mistakes} | {name: [asdict(m) for m in rows] for name, rows in told.items()}
    more = {"backends": [asdict(one) for one in reached], "hot_path": compiled.state()}
    typer.echo(json.dumps(answer | more, indent=2))


def _print_fingerprint(model: str, as_json: bool) -> None:
    from spillway_router.commands.fingerprint import fingerprint_of
    from spillway_server import environment as settings
    from spillway_server.planning import hardware, models
    from spillway_server.refusal import Refusal

    found = models.resolve(model, hardware.detect(), settings.hub_cache())
    if isinstance(found, Refusal):
        fail(f"{found.reason} {found.fix}")
    marks = fingerprint_of(found).model_dump(exclude_none=True)
    if as_json:
        typer.echo(json.dumps({"fingerprint": marks}, indent=2))
    else:
        told = ", ".join(f'{name}: "{mark}"' for name, mark in marks.items())  # quoted: some would be YAML's numbers
        typer.echo(f"fingerprint: {{{told}}}")


def _convert_litellm(source: Path, as_json: bool) -> None:
    from spillway_router.commands.check_litellm import LiteLLMError, convert

    try:
        made = convert(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, LiteLLMError) as error:
        fail(f"{source}: {error}")
    if as_json:
        typer.echo(json.dumps({"config": made.settings, "notes": made.notes}, indent=2))
        return
    typer.echo(made.text, nl=False)
    typer.echo(f"{len(made.settings['backends'])} backends converted, {len(made.notes)} notes at the top", err=True)
