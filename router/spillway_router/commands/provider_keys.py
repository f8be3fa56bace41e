"""`spillway keys provider-key`: store, list and delete the provider keys of callers, sealed."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, when

if TYPE_CHECKING:
    from spillway_router.ledger.provider_keys import ProviderKeys
    from spillway_router.ledger.tables.provider_keys import ProviderPlace

KeyArgument = Annotated[str, typer.Argument(help="ID of the API key whose requests use it.")]
ProviderArgument = Annotated[str, typer.Argument(help="A provider of the catalogue, such as groq.")]
UserOption = Annotated[str, typer.Option(help="The end user as requests name them; all users of the key by default.")]
provider_key_app = typer.Typer(
    no_args_is_help=True, help="Manage the provider keys of callers: set, list, remove, reseal."
)


@provider_key_app.command("set")
def set_provider_key(
    key_id: KeyArgument,
    provider: ProviderArgument,
    path: ConfigOption = None,
    user: UserOption = "",
    variable: Annotated[
        str, typer.Option("--from-env", help="The variable that holds the provider key; standard input by default.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Store a provider key in place of the one before. Read it from standard input or a variable, never from the
    command line."""
    from spillway_router.ledger.vault import NONCE_BYTES
    from spillway_router.providers.catalogue import load_catalogue
    from spillway_router.proxy.exchange.byok_pools import OwnKeys

    names = OwnKeys(load_catalogue()).names
    if provider not in names:
        fail(f"the provider {provider!r} is none of {', '.join(names)}")
    secret = _secret(load(path).environment.get(variable, "") if variable else None, variable)
    with _provider_keys(path) as keys:
        if not keys.put(_place(key_id, user, provider), secret, secrets.token_bytes(NONCE_BYTES), now_ms()):
            fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")
    _answer({"stored": provider, "key_id": key_id}, f"stored the key of {provider} for {key_id}", as_json=as_json)


@provider_key_app.command("list")
def list_provider_keys(key_id: KeyArgument, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the providers of which keys are stored for an API key. They are never shown."""
    with _provider_keys(path) as keys:
        records = keys.stored(key_id)
    rows = [
        {"provider": each.place.provider, "user_id": each.place.user_id, "stored": when(each.stored_ms)}
        for each in records
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        say(f"{row['provider']:16}  {row['user_id'] or 'all users':32}  {row['stored']}")


@provider_key_app.command("remove")
def remove_provider_key(
    key_id: KeyArgument,
    provider: ProviderArgument,
    path: ConfigOption = None,
    user: UserOption = "",
    as_json: JsonOption = False,
) -> None:
    """Delete a stored provider key; running routers follow within a second."""
    with _provider_keys(path) as keys:
        removed = keys.remove(_place(key_id, user, provider))
    if not removed:
        fail(f"no key of {provider} is stored there; `spillway keys provider-key list {key_id}` shows what is")
    _answer({"removed": provider, "key_id": key_id}, f"removed the key of {provider} for {key_id}", as_json=as_json)


@provider_key_app.command("reseal")
def reseal_provider_keys(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Seal all stored provider keys with the first secret key, after which the ones behind it can be taken away."""
    with _provider_keys(path) as keys:
        count = keys.seal_again(secrets.token_bytes)
    _answer({"sealed": count}, f"sealed {count} provider keys again", as_json=as_json)


def _answer(values: Mapping[str, object], text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values))
    else:
        say(text)


@contextmanager
def _provider_keys(path: str | None) -> Iterator[ProviderKeys]:
    """Open the provider keys of the configured ledger. An error ends the command."""
    from spillway_router.config.load import ConfigError
    from spillway_router.config.secret_keys import vault_of
    from spillway_router.ledger.provider_keys import ProviderKeys
    from spillway_router.ledger.vault import VaultError

    loaded = load(path)
    try:
        vault = vault_of(loaded)
    except ConfigError as error:
        fail("\n".join(str(problem) for problem in error.problems))
    with opened(loaded, "write") as ledger:
        try:
            yield ProviderKeys(ledger.provider_keys, vault)
        except VaultError as error:
            fail(str(error))


def _place(key_id: str, user: str, provider: str) -> ProviderPlace:
    from spillway_router.core.money.users import user_id
    from spillway_router.ledger.tables.provider_keys import ProviderPlace

    return ProviderPlace(key_id, user_id(key_id, user) if user else "", provider)


def _secret(value: str | None, variable: str) -> str:
    """Return the value of a variable, or read a line of standard input, which is not shown while somebody types it."""
    if value is not None:
        if not value:
            fail(f"the variable {variable} is empty or not set")
        return value.strip()
    if sys.stdin.isatty():
        return str(typer.prompt("provider key", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()
