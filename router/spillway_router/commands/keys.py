"""`spillway keys`: create, accept, list, change, rotate and revoke API keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say
from spillway_router.commands.key_book import key_book
from spillway_router.commands.option_groups import takes
from spillway_router.commands.provider_keys import provider_key_app
from spillway_router.commands.running_router import LedgerOrRouter

if TYPE_CHECKING:
    from spillway_router.ledger.records import Role

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
RoleOption = Annotated[str, typer.Option(metavar="inference|viewer|admin", help="What the key may do.")]
ChangedRoleOption = Annotated[str | None, typer.Option(metavar="inference|viewer|admin", help="What the key may do.")]
TierOption = Annotated[str, typer.Option(help="Tier that policies and budgets refer to.")]
ChangedTierOption = Annotated[str | None, typer.Option(help="Tier that policies and budgets refer to.")]
keys_app = typer.Typer(no_args_is_help=True, help="Manage API keys: create, list, show, set, rotate, revoke.")

keys_app.add_typer(provider_key_app, name="provider-key")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a key, as options; None leaves it as it is, or at its default."""

    models: ModelsOption = None
    backends: BackendsOption = None
    expires: ExpiresOption = None
    per_minute: RateOption = None
    tokens_per_minute: TokensOption = None
    concurrent: ConcurrentOption = None
    budget: BudgetOption = None
    user_budget: UserBudgetOption = None
    user_credits: UserCreditsOption = None
    user_better: UserBetterOption = None

    def terms(self) -> dict[str, Any]:
        """Return them as terms of a key."""
        names = {"models": self.models, "backends": self.backends}
        lists = {name: _names(text) for name, text in names.items() if text is not None}
        return lists | {
            "expires": self.expires,
            "rpm": self.per_minute,
            "tpm": self.tokens_per_minute,
            "concurrent": self.concurrent,
            "budget": self.budget,
            "user_budget": self.user_budget,
            "user_credits": self.user_credits,
            "user_better": self.user_better,
        }


@dataclass(frozen=True, slots=True)
class NewPermissions:
    """What a new key may do, as options."""

    role: RoleOption = "inference"
    tier: TierOption = ""
    private: Annotated[
        bool, typer.Option("--private", help="Requests with this key never leave this machine's engines.")
    ] = False
    may_route: Annotated[
        bool, typer.Option("--may-route", help="Allow requests with this key to choose between local and cloud.")
    ] = False


@dataclass(frozen=True, slots=True)
class ChangedPermissions:
    """What a key may do from now on, as options; None leaves it as it is."""

    role: ChangedRoleOption = None
    tier: ChangedTierOption = None
    private: Annotated[
        bool | None, typer.Option("--private/--any", help="Whether its requests stay on this machine's engines.")
    ] = None
    may_route: Annotated[
        bool | None, typer.Option("--may-route/--no-route", help="Whether requests may choose between local and cloud.")
    ] = None


def _permission_terms(permissions: NewPermissions | ChangedPermissions) -> dict[str, Any]:
    terms: dict[str, Any] = {
        "role": permissions.role,
        "tier": permissions.tier,
        "may_route": permissions.may_route,
    }
    if permissions.private is not None:
        terms["privacy"] = "local-only" if permissions.private else "any"
    return terms


@keys_app.command("create")
@takes("place", LedgerOrRouter)
@takes("limits", Limits)
@takes("permissions", NewPermissions)
def create_key(name: str, permissions: NewPermissions, limits: Limits, place: LedgerOrRouter) -> None:
    """Create a key and show its secret once."""
    with key_book(place, "create") as book:
        created = book.create({"name": name, **_permission_terms(permissions), **limits.terms()})
    text = f"id   {created['id']}\nkey  {created['key']}\nSave the key now: it is not stored and not shown again."
    place.answer(created, text)


@keys_app.command("accept")
def accept_key(
    entry: Annotated[
        str, typer.Argument(help="ID:SHA256 of a key that was created elsewhere, as `spillway deploy` does.")
    ],
    path: ConfigOption = None,
    role: RoleOption = "admin",
    as_json: JsonOption = False,
) -> None:
    """Add a key of which only the hash is known here. Adding it twice is not an error."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.tables.key_terms import shown
    from spillway_router.ledger.tables.keys import KeySpec, KeyStore, accepted

    key_id, _, digest = entry.partition(":")
    with opened(load(path)) as ledger:
        try:
            record = accepted(KeySpec("deploy", cast("Role", role)), key_id, digest, now_ms())
            if record.id not in {key.id for key in KeyStore(ledger.keys).list()}:
                ledger.keys.add(record)
        except LedgerError as error:
            fail(str(error))
    if as_json:
        typer.echo(json.dumps(shown(record), indent=2))
    else:
        say(f"id   {record.id}")


@keys_app.command("list")
@takes("place", LedgerOrRouter)
def list_keys(place: LedgerOrRouter) -> None:
    """List all keys, without their secrets."""
    with key_book(place, "read") as book:
        rows = book.keys()
    if place.as_json:
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
        say("; ".join([line, *_limits(row)]))


@keys_app.command("show")
@takes("place", LedgerOrRouter)
def show_key(key_id: str, place: LedgerOrRouter) -> None:
    """Show what a key may do. Its secret is not stored."""
    with key_book(place, "read") as book:
        terms = book.key(key_id)
    place.answer(terms, "\n".join(f"{term:18}{_text(value)}" for term, value in terms.items()))


@keys_app.command("set")
@takes("place", LedgerOrRouter)
@takes("limits", Limits)
@takes("permissions", ChangedPermissions)
def set_key(
    key_id: str, permissions: ChangedPermissions, limits: Limits, place: LedgerOrRouter, force: ForceOption = False
) -> None:
    """Change what a key may do; what is left out stays. Running routers follow within a second."""
    with key_book(place, "write") as book:
        changed = book.change(key_id, {**_permission_terms(permissions), **limits.terms()}, force=force)
    place.answer(changed, f"changed {key_id}")


@keys_app.command("rotate")
@takes("place", LedgerOrRouter)
def rotate_key(
    key_id: str,
    place: LedgerOrRouter,
    grace: Annotated[
        str, typer.Option(help="How long the secret before is still accepted, such as 7d, 1h or 0m.")
    ] = "24h",
) -> None:
    """Give a key a new secret, and show it once. The one before works until the grace period ends."""
    with key_book(place, "write") as book:
        rotated = book.rotate(key_id, grace)
    until = rotated["old_secret_until"]
    place.answer(rotated, f"key  {rotated['key']}\nThe secret before works until {until}. Save the new key now.")


def _names(text: str) -> list[str]:
    return [] if text == "all" else [part.strip() for part in text.split(",")]


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
    as_json: JsonOption = False,
) -> None:
    """Print the pseudonym of an end user, by which alerts, refusals and the ledger name a cap of each user."""
    from spillway_router.core.money.users import user_id

    pseudonym = user_id(key_id, name)
    typer.echo(json.dumps({"user": pseudonym}) if as_json else pseudonym)


@keys_app.command("revoke")
@takes("place", LedgerOrRouter)
def revoke_key(key_id: str, place: LedgerOrRouter, force: ForceOption = False) -> None:
    """Revoke a key; running routers reject it within a second."""
    with key_book(place, "write") as book:
        revoked = book.revoke(key_id, force=force)
    place.answer(revoked, f"revoked {key_id}")
