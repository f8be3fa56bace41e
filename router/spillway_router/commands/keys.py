"""`spillway keys`: create, accept, list, change, rotate and revoke API keys."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, when

if TYPE_CHECKING:
    from spillway_router.ledger.records import KeyPrivacy, KeyRecord, Role

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NANO = 10**9
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
BudgetOption = Annotated[
    str | None, typer.Option(help="Cap on the key's cloud spend, such as 5/day, 0.50/hour or 100/month; none: no cap.")
]
keys_app = typer.Typer(no_args_is_help=True, help="Manage API keys: create, list, set, rotate, revoke.")


@keys_app.command("create")
def create_key(
    name: str,
    path: ConfigOption = None,
    role: Annotated[str, typer.Option(help="inference, viewer or admin.")] = "inference",
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
    budget: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret once."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.keys import KeySpec, KeyStore

    privacy: KeyPrivacy = "local-only" if private else "any"
    with opened(load(path)) as ledger:
        try:
            rules = _rules(models, backends, expires, per_minute, budget)
            spec = KeySpec(name, cast("Role", role), tier=tier, privacy=privacy, may_route=may_route, **rules)
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
    role: Annotated[str, typer.Option(help="inference, viewer or admin.")] = "admin",
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
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "read") as ledger:
        records = KeyStore(ledger.keys).list()
    rows = [
        {
            "id": r.id,
            "name": r.name,
            "role": r.role,
            "tier": r.tier,
            "privacy": r.privacy,
            "may_route": r.may_route,
            **_shown_rules(r),
            "created": when(r.created),
            "revoked": None if r.revoked is None else when(r.revoked),
        }
        for r in records
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = f"revoked {row['revoked']}" if row["revoked"] else "valid"
        if row["expires"]:
            state += f" until {row['expires']}"
        limits = [f"{name} {row[name]}" for name in ("models", "backends", "rpm", "budget") if row[name]]
        line = f"{row['id']}  {row['role']:9}  {row['privacy']:10}  {row['created']}  {state}  {row['name']}"
        typer.echo("; ".join([line, *limits]))


@keys_app.command("set")
def set_key(
    key_id: str,
    path: ConfigOption = None,
    role: Annotated[str | None, typer.Option(help="inference, viewer or admin.")] = None,
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
    budget: BudgetOption = None,
) -> None:
    """Change what a key may do; what is left out stays. Running routers follow within a second."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.keys import KeyStore, spec_of

    with opened(load(path), "write") as ledger:
        store = KeyStore(ledger.keys)
        record = _valid_key(store.list(), key_id)
        try:
            changes: dict[str, Any] = {"role": role, "tier": tier, "may_route": may_route}
            changes["privacy"] = None if private is None else "local-only" if private else "any"
            changes = {name: value for name, value in changes.items() if value is not None}
            changes |= _rules(models, backends, expires, per_minute, budget)
            store.set(key_id, replace(spec_of(record), **changes))
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
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "write") as ledger:
        store = KeyStore(ledger.keys)
        _valid_key(store.list(), key_id)
        until_ms = now_ms() + _duration_ms(grace, "--grace")
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


def _rules(
    models: str | None, backends: str | None, expires: str | None, per_minute: int | None, budget: str | None
) -> dict[str, Any]:
    """Return the rules that the options set, by their names in KeySpec."""
    rules: dict[str, Any] = {}
    for name, text in (("models", models), ("backends", backends)):
        if text is not None:
            rules[name] = () if text == "all" else tuple(part.strip() for part in text.split(","))
    if expires is not None:
        rules["expires"] = None if expires == "never" else now_ms() + _duration_ms(expires, "--expires")
    if per_minute is not None:
        rules["per_minute"] = per_minute
    if budget is not None:
        rules["budget_nano"], rules["budget_period"] = _budget(budget)
    return rules


def _duration_ms(text: str, option: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if match is None:
        fail(f"{option} {text!r} is no time; write it like 30m, 12h, 90d or 4w")
    return int(match.group(1)) * _SECONDS[match.group(2)] * 1000


def _budget(text: str) -> tuple[int | None, str]:
    if text == "none":
        return None, ""
    amount, slash, period = text.partition("/")
    try:
        nano = int(Decimal(amount) * _NANO)
    except (InvalidOperation, ValueError, OverflowError):
        slash = ""
    if not slash:
        fail(f"--budget {text!r} is no budget; write USD per period, such as 5/day")
    return nano, period


def _shown_rules(record: KeyRecord) -> dict[str, Any]:
    from spillway_router.core.money.tariff import usd

    budget = None if record.budget_nano is None else f"{usd(record.budget_nano)} USD/{record.budget_period}"
    return {
        "models": record.models,
        "backends": record.backends,
        "rpm": record.per_minute,
        "budget": budget,
        "expires": None if record.expires is None else when(record.expires),
    }


@keys_app.command("user")
def user_pseudonym(
    key_id: Annotated[str, typer.Argument(help="ID of the key with which the user's requests come.")],
    name: Annotated[str, typer.Argument(help="What the client sends as the user; empty for requests that name none.")],
) -> None:
    """Print the pseudonym of an end user, by which alerts, refusals and the ledger name a cap of each user."""
    from spillway_router.core.money.users import user_id

    typer.echo(user_id(key_id, name))


@keys_app.command("revoke")
def revoke_key(key_id: str, path: ConfigOption = None) -> None:
    """Revoke a key; running routers reject it within a second."""
    from spillway_router.ledger.tables.keys import KeyStore

    with opened(load(path), "write") as ledger:
        revoked = KeyStore(ledger.keys).revoke(key_id, now_ms())
    if not revoked:
        fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")
    say(f"revoked {key_id}")
