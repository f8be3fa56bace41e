"""`spillway`: the command line. Heavy imports happen inside the commands, so that `--help` and `keys` stay quick."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast
from urllib.parse import urlsplit

import typer

from spillway_router import config
from spillway_router.config import ConfigError, Loaded, Mistake, ServerPart
from spillway_server import cli as server_cli
from spillway_server.events import EngineEvent, EngineExited, EngineProgress, EngineReady, EngineStarting
from spillway_server.refusal import Refusal as ServerRefusal
from spillway_server.serve import Prepared, ServeOptions, prepare, run_prepared

if TYPE_CHECKING:
    from spillway_router.ledger.base import KeyPrivacy, Ledger, Role

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A rented GPU first, the cloud when it spills over.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
app.add_typer(keys_app, name="keys")
prices_app = typer.Typer(no_args_is_help=True, help="Prices of the cloud models that are known.")
app.add_typer(prices_app, name="prices")
server_cli.register(app)

ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="Path of spillway.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str) -> NoReturn:
    """Say what is wrong on stderr and exit 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _loaded(path: str | None) -> Loaded:
    try:
        return config.read(path)
    except ConfigError as error:
        fail("The configuration has mistakes:\n" + "\n".join(f"  - {m}" for m in error.mistakes))


def _version() -> str:
    return distribution_version("spillway")


def _ledger(loaded: Loaded) -> Ledger:
    from spillway_router.ledger.base import LedgerError
    from spillway_router.ledger.url import open_ledger

    try:
        return open_ledger(loaded.settings.ledger.url)
    except LedgerError as error:
        fail(f"ledger: {error}")


def _run(loaded: Loaded, beside: tuple[Any, ...] = ()) -> None:
    import uvloop

    from spillway_router.ledger.base import LedgerError
    from spillway_router.runtime import route as run_router

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def listening(url: str) -> None:
        typer.echo(f"Spillway listens on {url}  (OpenAI base URL: {url}/v1, docs: {url}/docs)")
        sys.stdout.flush()

    try:
        uvloop.run(run_router(loaded, _version(), listening, beside))
    except ConfigError as error:
        fail("\n".join(str(m) for m in error.mistakes))
    except LedgerError as error:
        fail(f"ledger: {error}")
    except OSError as error:
        fail(f"can't listen on {loaded.settings.listen}: {error.strerror or error}; change `listen` or stop the other")


@app.command()
def route(path: ConfigOption = None) -> None:
    """Run the router only."""
    _run(_loaded(path))


@app.command()
def up(path: ConfigOption = None) -> None:
    """Run the engine and the router; the router answers first and overflows while the engine warms up."""
    loaded = _loaded(path)
    place = next((b for b in loaded.settings.backends if b.provider == "vllm" and b.base_url), None)
    if place is None:
        fail("`up` launches the engine of a vllm backend and the configuration has none; use `spillway route`")
    url = urlsplit(str(place.base_url))
    server = loaded.settings.server or ServerPart()
    options = ServeOptions(
        model=server.model,
        host=url.hostname or "127.0.0.1",
        port=url.port or 8001,
        vllm_args=server.vllm_args,
        cache_root=Path(".cache/vllm"),
    )
    prepared = prepare(options)
    if isinstance(prepared, ServerRefusal):
        fail(f"engine: {prepared.reason} {prepared.fix}")
    _run(_serving(loaded, place.name, prepared), (_supervise(prepared, options),))


def _serving(loaded: Loaded, name: str, prepared: Prepared) -> Loaded:
    """The configuration with what the plan knows of the engine it launches: its served name, its sequences."""
    flags = dict(zip(prepared.plan.arguments, prepared.plan.arguments[1:], strict=False))
    known = {"model": prepared.plan.served_name, "max_sequences": int(flags.get("--max-num-seqs", 256))}
    backends = tuple(
        b.model_copy(update={k: v for k, v in known.items() if k == "model" or getattr(b, k) is None})
        if b.name == name
        else b
        for b in loaded.settings.backends
    )
    return replace(loaded, settings=loaded.settings.model_copy(update={"backends": backends}))


async def _supervise(prepared: Prepared, options: ServeOptions) -> None:
    """Run the engine beside the router. Its end is not the router's: the cloud still answers."""
    refusal = await run_prepared(prepared, options, _tell)
    if refusal is not None:
        typer.echo(f"engine given up: {refusal.reason} {refusal.fix}", err=True)


def _tell(event: EngineEvent) -> None:
    if isinstance(event, EngineStarting):
        typer.echo(f"engine starting; its log: {event.log_path}")
    elif isinstance(event, EngineReady):
        typer.echo(f"engine ready after {event.elapsed_s:.0f} s: {event.served_model} at {event.base_url}")
    elif isinstance(event, EngineProgress):
        typer.echo(f"engine {event.elapsed_s:.0f} s: {event.phase}")
    elif isinstance(event, EngineExited):
        typer.echo(f"engine ended: {event.diagnosis.reason} {event.diagnosis.fix}", err=True)


LiteLLMOption = Annotated[
    Path | None, typer.Option("--from-litellm", help="Print the spillway.yaml of a LiteLLM config.yaml instead.")
]


@app.command()
def check(path: ConfigOption = None, from_litellm: LiteLLMOption = None, as_json: JsonOption = False) -> None:
    """Validate configuration, keys, prices and the ledger; say every mistake and its fix."""
    from spillway_router.assembly import assemble

    if from_litellm is not None:
        _convert_litellm(from_litellm, as_json)
        return
    try:
        loaded = config.read(path) if as_json else _loaded(path)
    except ConfigError as error:
        _print_checked(error.mistakes, ())
        raise typer.Exit(1) from None
    found = assemble(loaded.settings, loaded.environment, datetime.now(UTC).date())
    mistakes = [config.located(loaded.text, m) for m in found] if isinstance(found, tuple) else []
    off = [] if isinstance(found, tuple) else [config.located(loaded.text, m) for m in found.off]
    _ledger(loaded).close()
    if as_json:
        _print_checked(mistakes, off)
    else:
        typer.echo(f"configuration: {loaded.path or 'defaults (no spillway.yaml found)'}")
        for mistake in mistakes:
            typer.echo(f"  wrong  {mistake}")
        for one in off:
            typer.echo(f"  off    {one}")
        if not isinstance(found, tuple):
            for place in found.places.values():
                kind = "local" if place.backend.local else "cloud"
                typer.echo(f"  ready  {place.backend.name}: {kind}, {place.backend.provider}, {place.backend.model}")
        typer.echo("no mistakes" if not mistakes else f"{len(mistakes)} to mend")
    if mistakes:
        raise typer.Exit(1)


def _print_checked(mistakes: Sequence[Mistake], off: Sequence[Mistake]) -> None:
    answer = {"ok": not mistakes, "mistakes": [asdict(m) for m in mistakes], "off": [asdict(m) for m in off]}
    typer.echo(json.dumps(answer, indent=2))


def _convert_litellm(source: Path, as_json: bool) -> None:
    from spillway_router.litellm_import import LiteLLMError, convert

    try:
        made = convert(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, LiteLLMError) as error:
        fail(f"{source}: {error}")
    if as_json:
        typer.echo(json.dumps({"config": made.settings, "notes": made.notes}, indent=2))
        return
    typer.echo(made.text, nl=False)
    typer.echo(f"{len(made.settings['backends'])} backends converted, {len(made.notes)} notes at the top", err=True)


@app.command()
def chat(
    text: Annotated[str | None, typer.Argument(help="Answer this and end; - reads standard input.")] = None,
    path: ConfigOption = None,
    url: Annotated[str | None, typer.Option(help="The router's address; else `listen` of the configuration.")] = None,
    model: Annotated[str, typer.Option(help="Alias, or backend/model.")] = "auto",
    key: Annotated[str, typer.Option(envvar="SPILLWAY_API_KEY", show_envvar=True, help="API key.")] = "",
    private: Annotated[bool, typer.Option("--private", help="The text must not leave this machine's engines.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of one answer.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a running router; shows who answered, why, and what it cost."""
    from rich.console import Console

    from spillway_router.chat import Asking, ChatError, converse, one_shot

    listen = f"http://{_loaded(path).settings.listen}" if url is None else url.rstrip("/").removesuffix("/v1")
    asking = Asking(listen.replace("//0.0.0.0:", "//127.0.0.1:"), model, key, private, max_tokens)
    console = Console()
    if text is None:
        if as_json:
            fail("--json answers one text: spillway chat --json 'your text'")
        converse(asking, console, lambda: console.input("[bold]> [/]"))
        return
    try:
        one_shot(asking, sys.stdin.read() if text == "-" else text, console, as_json=as_json)
    except ChatError as error:
        fail(str(error))


@prices_app.command("list")
def list_prices(
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    as_json: JsonOption = False,
) -> None:
    """USD per million tokens of every model in the price list, with the day each price began."""
    from spillway_router.providers.base import ProviderError
    from spillway_router.providers.prices import listed

    try:
        rows = [row for row in listed(datetime.now(UTC).date()) if provider in (None, row.provider)]
    except ProviderError as error:
        fail(str(error))
    if not rows:
        fail(f"no prices for {provider!r}; without --provider all are shown")
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    typer.echo("USD per million tokens: input, output, cached input, valid from")
    for row in rows:
        cached = row.cached_input or "-"
        name = f"{row.provider}  {row.model}"
        retired = f"  retired {row.retired_on}" if row.retired_on else ""
        typer.echo(f"{name:64} {row.input:>8} {row.output:>8} {cached:>8}  {row.valid_from}{retired}")


@app.command()
def report(
    path: ConfigOption = None,
    day: Annotated[str, typer.Option(help="UTC day as YYYY-MM-DD, or today.")] = "today",
    as_json: JsonOption = False,
) -> None:
    """Fixed and per-request cost of a day, side by side."""
    from rich.console import Console

    from spillway_router.ledger.report_tables import render_report, report_json
    from spillway_router.runtime import report_for

    loaded = _loaded(path)
    try:
        chosen = datetime.now(UTC).date() if day == "today" else date.fromisoformat(day)
    except ValueError:
        fail(f"--day {day!r} is not a date; write it like 2026-11-20")
    ledger = _ledger(loaded)
    try:
        found = report_for(ledger, loaded, chosen)
    except ConfigError as error:
        fail(str(error))
    finally:
        ledger.close()
    if as_json:
        typer.echo(report_json(found))
    else:
        render_report(found, Console())


@app.command()
def explain(request_id: str, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What the ledger knows of a request: decision, reasons, attempts, tokens, charges."""
    from spillway_router.core.tariff import usd

    ledger = _ledger(_loaded(path))
    entries = ledger.entries_of(request_id)
    ledger.close()
    if not entries:
        fail(f"no ledger rows for {request_id}")
    if as_json:
        typer.echo(json.dumps([asdict(e) for e in entries], indent=2))
        return
    for e in entries:
        amount = usd(e.reserved_nano if e.kind == "reserved" else e.amount_nano)
        tokens = f"{e.prompt_tokens} + {e.completion_tokens} tokens"
        typer.echo(
            f"attempt {e.attempt_no}  {e.kind:9} {e.backend:12} {e.decision:10} {e.status:9} {tokens}  {amount} USD"
        )
        if e.reasons:
            typer.echo(f"           because: {e.reasons}")


@keys_app.command("create")
def create_key(
    name: str,
    path: ConfigOption = None,
    role: Annotated[str, typer.Option(help="inference, viewer or admin.")] = "inference",
    tier: Annotated[str, typer.Option(help="Tier for policies and budgets.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Requests with this key never leave.")] = False,
    may_route: Annotated[bool, typer.Option("--may-route", help="May use the x-spillway-route header.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a key; the secret is shown once."""
    from spillway_router.ledger.base import LedgerError
    from spillway_router.ledger.keys import KeySpec, KeyStore

    ledger = _ledger(_loaded(path))
    privacy: KeyPrivacy = "local-only" if private else "any"
    try:
        spec = KeySpec(name, cast("Role", role), tier, privacy, may_route)
        made = KeyStore(ledger).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), int(time.time() * 1000))
    except LedgerError as error:
        fail(str(error))
    finally:
        ledger.close()
    if as_json:
        typer.echo(json.dumps({"id": made.record.id, "key": made.token, "role": role}))
    else:
        typer.echo(f"id   {made.record.id}\nkey  {made.token}\nKeep the key now: it is not stored and not shown again.")


@keys_app.command("list")
def list_keys(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """All keys, without their secrets."""
    from spillway_router.ledger.keys import KeyStore

    ledger = _ledger(_loaded(path))
    records = KeyStore(ledger).list()
    ledger.close()
    rows = [
        {
            "id": r.id,
            "name": r.name,
            "role": r.role,
            "tier": r.tier,
            "privacy": r.privacy,
            "created": _when(r.created),
            "revoked": None if r.revoked is None else _when(r.revoked),
        }
        for r in records
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = f"revoked {row['revoked']}" if row["revoked"] else "valid"
        typer.echo(f"{row['id']}  {row['role']:9}  {row['privacy']:10}  {row['created']}  {state}  {row['name']}")


@keys_app.command("revoke")
def revoke_key(key_id: str, path: ConfigOption = None) -> None:
    """Revoke a key; running routers follow within a second."""
    from spillway_router.ledger.keys import KeyStore

    ledger = _ledger(_loaded(path))
    revoked = KeyStore(ledger).revoke(key_id, int(time.time() * 1000))
    ledger.close()
    if not revoked:
        fail(f"no valid key has the id {key_id}; `spillway keys list` shows them")
    typer.echo(f"revoked {key_id}")


@app.command()
def schema() -> None:
    """Print the JSON schema of spillway.yaml, for editors."""
    typer.echo(json.dumps(config.Settings.model_json_schema(), indent=2))


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
