"""`spillway keys`: create, accept, list, change, rotate and revoke API keys."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, when
from spillway_router.commands.provider_keys import provider_key_app

if TYPE_CHECKING:
    from spillway_router.ledger.records import KeyRecord, Role

ModelsOption = Annotated[
    str | None, typer.Option(help="Aliases and models that the key may ask for, separated by commas; all: every one.")
]
BackendsOption = Annotated[
    str | None, typer.Option(help="Backends that may serve the key, separated by commas; all: every one.")
]
ExpiresOption = Annotated[
    str | None, typer.Option(help="How long the key is valid from now on, such as 90d, 12h or 30m; never: for ever.")
]
RateOption = Annotated[int | None, typer.Option("--rpm", help="Most requests per minute; 0: any number.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it even if no key with the role admin is left.")]
TokensOption = Annotated[
    int | None, typer.Option("--tpm", help="Most tokens per minute, of prompts and answers; 0: any number.")
]
ConcurrentOption = Annotated[int | None, typer.Option(help="Most requests in progress at one router; 0: any number.")]
UserBudgetOption = Annotated[
    str | None, typer.Option(help="Cap on the cloud spend of each of its end users, such as 0.50/day; none: no cap.")
]
UserCreditsOption = Annotated[
    str | None, typer.Option(help="Most requests of each of its end users, such as 1000/month; none: any number.")
]
UserBetterOption = Annotated[
    str | None, typer.Option(help="Most better answers that each of its end users may ask for, such as 20/day; none.")
]
BudgetOption = Annotated[
    str | None, typer.Option(help="Cap on the key's cloud spend, such as 5/day, 0.50/hour or 100/month; none: no cap.")
]
keys_app = typer.Typer(no_args_is_help=True, help="Manage API keys: create, list, show, set, rotate, revoke.")

keys_app.add_typer(provider_key_app, name="provider-key")


@keys_app.command("create")
def create_key(
    name: str,
    path: ConfigOption = None,
    role: Annotated[str, typer.Option(metavar="inference|viewer|admin", help="What the key may do.")] = "inference",
    tier: Annotated[str, typer.Option(help="Tier that policies and budgets refer to.")] = "",
    private: Annotated[
        bool, typer.Option("--private", help="Requests with this key never leave this machine's engines.")
    ] = False,
    may_route: Annotated[
        bool, typer.Option("--may-route", help="Allow requests with this key to choose between local and cloud.")
    ] = False,
    models: ModelsOption = None,
    backends: BackendsOption = None,
    expires: ExpiresOption = None,
    per_minute: RateOption = None,
    tokens_per_minute: TokensOption = None,
    concurrent: ConcurrentOption = None,
    budget: BudgetOption = None,
    user_budget: UserBudgetOption = None,
    user_credits: UserCreditsOption = None,
    user_better: UserBetterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret once."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.key_terms import spec_fields
    from spillway_router.ledger.tables.keys import KeySpec, KeyStore

    terms: dict[str, Any] = {"name": name, "role": role, "tier": tier, "may_route": may_route}
    terms |= _terms(private=private, models=models, backends=backends)
    terms |= {"expires": expires, "budget": budget}
    terms |= {"user_budget": user_budget, "user_credits": user_credits, "user_better": user_better}
    terms |= {"rpm": per_minute, "tpm": tokens_per_minute, "concurrent": concurrent}
    with opened(load(path)) as ledger:
        try:
            spec = KeySpec(**spec_fields(terms, now_ms()))
            created = KeyStore(ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), now_ms())
        except LedgerError as error:
            fail(str(error))
        typer.echo(f"ledger: {ledger.name}", err=True)
    if as_json:
        typer.echo(json.dumps({"id": created.record.id, "key": created.token, "role": role}))
    else:
        say(f"id   {created.record.id}\nkey  {created.token}\nSave the key now: it is not stored and not shown again.")


@keys_app.command("accept")
def accept_key(
    entry: Annotated[
        str, typer.Argument(help="ID:SHA256 of a key that was created elsewhere, as `spillway deploy` does.")
    ],
    path: ConfigOption = None,
    role: Annotated[str, typer.Option(metavar="inference|viewer|admin", help="What the key may do.")] = "admin",
) -> None:
    """Add a key of which only the hash is known here. Adding it twice is not an error."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.keys import KeySpec, KeyStore, accepted

    key_id, _, digest = entry.partition(":")
    with opened(load(path)) as ledger:
        try:
            record = accepted(KeySpec("deploy", cast("Role", role)), key_id, digest, now_ms())
            if record.id not in {key.id for key in KeyStore(ledger.keys).list()}:
                ledger.keys.add(record)
        except LedgerError as error:
            fail(str(error))
    say(f"id   {record.id}")


@keys_app.command("list")
def list_keys(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all keys, without their secrets."""
    from spillway_router.ledger.tables.key_terms import shown
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "read") as ledger:
        rows = [shown(record) for record in KeyStore(ledger.keys).list()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("no keys; make one: spillway keys create NAME", err=True)
        return
    typer.echo(f"{'id':12}  {'role':9}  {'privacy':10}  {'created':20}  state  name; limits")
    for row in rows:
        state = f"revoked {row['revoked']}" if row["revoked"] else "valid"
        if row["expires"]:
            state += f" until {row['expires']}"
        line = f"{row['id']}  {row['role']:9}  {row['privacy']:10}  {row['created']}  {state}  {row['name']}"
        typer.echo("; ".join([line, *_limits(row)]))


@keys_app.command("show")
def show_key(key_id: str, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what a key may do. Its secret is not stored."""
    from spillway_router.ledger.tables.key_terms import shown
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "read") as ledger:
        record = KeyStore(ledger.keys).get(key_id)
    if record is None:
        fail(f"no key has the ID {key_id}; `spillway keys list` shows all keys")
    if as_json:
        typer.echo(json.dumps(shown(record), indent=2))
        return
    for term, value in shown(record).items():
        say(f"{term:18}{_text(value)}")


@keys_app.command("set")
def set_key(
    key_id: str,
    path: ConfigOption = None,
    role: Annotated[str | None, typer.Option(metavar="inference|viewer|admin", help="What the key may do.")] = None,
    tier: Annotated[str | None, typer.Option(help="Tier that policies and budgets refer to.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--any", help="Whether its requests stay on this machine's engines.")
    ] = None,
    may_route: Annotated[
        bool | None, typer.Option("--may-route/--no-route", help="Whether requests may choose between local and cloud.")
    ] = None,
    models: ModelsOption = None,
    backends: BackendsOption = None,
    expires: ExpiresOption = None,
    per_minute: RateOption = None,
    tokens_per_minute: TokensOption = None,
    concurrent: ConcurrentOption = None,
    budget: BudgetOption = None,
    user_budget: UserBudgetOption = None,
    user_credits: UserCreditsOption = None,
    user_better: UserBetterOption = None,
    force: ForceOption = False,
) -> None:
    """Change what a key may do; what is left out stays. Running routers follow within a second."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.key_terms import spec_fields
    from spillway_router.ledger.tables.keys import KeyStore, spec_of

    terms: dict[str, Any] = {"role": role, "tier": tier, "may_route": may_route}
    terms |= _terms(private=private, models=models, backends=backends)
    terms |= {"expires": expires, "budget": budget}
    terms |= {"user_budget": user_budget, "user_credits": user_credits, "user_better": user_better}
    terms |= {"rpm": per_minute, "tpm": tokens_per_minute, "concurrent": concurrent}
    with opened(load(path), "write") as ledger:
        store = KeyStore(ledger.keys)
        record = _valid_key(store.list(), key_id)
        try:
            spec = replace(spec_of(record), **spec_fields(terms, now_ms()))
            store.set(key_id, spec, now_ms(), force=force)
        except LedgerError as error:
            fail(str(error))
    say(f"changed {key_id}")


@keys_app.command("rotate")
def rotate_key(
    key_id: str,
    path: ConfigOption = None,
    grace: Annotated[
        str, typer.Option(help="How long the secret before is still accepted, such as 7d, 1h or 0m.")
    ] = "24h",
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret, and show it once. The one before works until the grace period ends."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.key_terms import duration_ms
    from spillway_router.ledger.tables.keys import KeyStore

    try:
        until_ms = now_ms() + duration_ms(grace, "grace")
    except LedgerError as error:
        fail(str(error))
    with opened(load(path), "write") as ledger:
        store = KeyStore(ledger.keys)
        _valid_key(store.list(), key_id)
        token = store.rotate(key_id, secrets.token_bytes(32), until_ms)
    if as_json:
        typer.echo(json.dumps({"id": key_id, "key": token, "old_until": when(until_ms)}))
    else:
        say(f"key  {token}\nThe secret before works until {when(until_ms)}. Save the new key now.")


def _valid_key(records: tuple[KeyRecord, ...], key_id: str) -> KeyRecord:
    record = next((record for record in records if record.id == key_id and record.revoked is None), None)
    if record is None:
        fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")
    return record


def _terms(private: bool | None, models: str | None, backends: str | None) -> dict[str, Any]:
    """Return the options that are written otherwise on the command line than in a key's terms."""
    terms: dict[str, Any] = {} if private is None else {"privacy": "local-only" if private else "any"}
    for name, text in (("models", models), ("backends", backends)):
        if text is not None:
            terms[name] = [] if text == "all" else [part.strip() for part in text.split(",")]
    return terms


def _limits(row: Mapping[str, Any]) -> list[str]:
    """Return what limits a key, for its line in the list."""
    return [
        f"{name} {_text(row[name])}"
        for name in ("models", "backends", "rpm", "tpm", "concurrent", "budget", "user_budget", "user_credits")
        if row[name]
    ]


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


@keys_app.command("user")
def user_pseudonym(
    key_id: Annotated[str, typer.Argument(help="ID of the key with which the user's requests come.")],
    name: Annotated[str, typer.Argument(help="What the client sends as the user; empty for requests that name none.")],
) -> None:
    """Print the pseudonym of an end user, by which alerts, refusals and the ledger name a cap of each user."""
    from spillway_router.core.money.users import user_id

    typer.echo(user_id(key_id, name))


@keys_app.command("revoke")
def revoke_key(key_id: str, path: ConfigOption = None, force: ForceOption = False) -> None:
    """Revoke a key; running routers reject it within a second."""
    from spillway_router.ledger.errors import LastAdminError
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "write") as ledger:
        try:
            revoked = KeyStore(ledger.keys).revoke(key_id, now_ms(), force=force)
        except LastAdminError as error:
            fail(str(error))
    if not revoked:
        fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")
    say(f"revoked {key_id}")
