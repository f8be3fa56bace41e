"""`spillway keys`: create, accept, list and revoke API keys."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Annotated, cast

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, when

if TYPE_CHECKING:
    from spillway_router.ledger.records import KeyPrivacy, Role

keys_app = typer.Typer(no_args_is_help=True, help="Manage API keys: create, list, revoke.")


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
        bool, typer.Option("--may-route", help="Allow the x-spillway-route header with this key.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret once."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.keys import KeySpec, KeyStore

    privacy: KeyPrivacy = "local-only" if private else "any"
    with opened(load(path)) as ledger:
        try:
            spec = KeySpec(name=name, role=cast("Role", role), tier=tier, privacy=privacy, may_route=may_route)
            created = KeyStore(ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), now_ms())
        except LedgerError as error:
            fail(str(error))
        typer.echo(f"ledger: {ledger.name}", err=True)
    if as_json:
        typer.echo(json.dumps({"id": created.record.id, "key": created.token, "role": role}))
    else:
        typer.echo(
            f"id   {created.record.id}\nkey  {created.token}\nSave the key now: it is not stored and not shown again."
        )


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
    typer.echo(f"id   {record.id}")


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
        typer.echo(f"{row['id']}  {row['role']:9}  {row['privacy']:10}  {row['created']}  {state}  {row['name']}")


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
    typer.echo(f"revoked {key_id}")
