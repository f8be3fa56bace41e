"""`spillway doctor`: check this machine, and who can reach the router that its configuration describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spillway_router.commands.common import ConfigOption, JsonOption

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_server.doctor import Check


def doctor(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check this machine (Python, memory, GPU, vLLM, startup files and more), and who can reach the router.

    Exits with status 1 when a check fails."""
    from spillway_server.cli import examine_machine, show_checks

    show_checks((*examine_machine(), *access_checks(path)), as_json)


def access_checks(path: str | None) -> Iterator[Check]:
    """Yield what is wrong with the router's address and its keys; one check that is fine if nothing is."""
    from spillway_router.config.exposure import exposure_warnings
    from spillway_router.config.load import ConfigError, read
    from spillway_router.config.running_proxies import running_proxies
    from spillway_server.doctor import Check, CheckStatus

    try:
        loaded = read(path)
    except ConfigError as error:
        yield Check("access", CheckStatus.WARN, str(error.problems[0]), "spillway check lists every mistake.")
        return
    settings = loaded.settings
    warnings = [each.problem for each in exposure_warnings(settings, running_proxies())]
    needs_keys = settings.keys.required or not settings.loopback
    if needs_keys and not _valid_keys(loaded):
        warnings.append("every request needs a key, and there is none; make one with spillway keys create NAME")
    for warning in warnings:
        seen, _, fix = warning.partition("; " if "; " in warning else ". ")
        yield Check("access", CheckStatus.WARN, seen, f"{fix[:1].upper()}{fix[1:]}")
    if not warnings:
        callers = "every request needs a key" if needs_keys else "programs on this machine need no key"
        yield Check("access", CheckStatus.OK, f"{settings.listen}; {callers}")


def _valid_keys(loaded: Loaded) -> int:
    """Return the number of keys that are neither revoked nor expired; 0 if there is no ledger yet."""
    from contextlib import closing

    from spillway_router.commands.common import now_ms
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.store.open import open_ledger

    try:
        with closing(open_ledger(loaded.settings.ledger.url, "read")) as ledger:
            keys = ledger.keys.all()
    except LedgerError:
        return 0
    return sum(key.revoked is None and (key.expires is None or key.expires > now_ms()) for key in keys)
