"""`spillway report review`: what went to the dear tier, who sent it there, and what to try."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened
from spillway_router.commands.replay import NOW, progress
from spillway_router.commands.since import SinceOption, since_ms
from spillway_router.config.load import ConfigError

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.core.replay.replay import CloudModel
    from spillway_router.replay.policies import Change, NamedPolicy
    from spillway_router.replay.review import Review


def review(path: ConfigOption = None, since: SinceOption = "7d", as_json: JsonOption = False) -> None:
    """Show what clouds cost and why, how often a local answer would have done, and what to try: each change is replayed
    over the same requests. Nothing is sent."""
    loaded = load(path)
    start_ms = since_ms(since, now_ms())
    arguments = [*(["--config", path] if path else []), "--since", since]
    result, notes = _review(loaded, start_ms, since, arguments)
    if as_json:
        from spillway_router.ledger.reports.json_report import with_usd

        typer.echo(json.dumps({**with_usd(result), "notes": notes}, indent=2))
        return
    from rich.console import Console

    from spillway_router.replay.review_table import print_review

    print_review(result, notes, Console())


def _review(loaded: Loaded, start_ms: int, since: str, arguments: list[str]) -> tuple[Review, list[str]]:
    from spillway_router.core.replay.replay import CloudModel
    from spillway_router.replay.compare import Recorded, compared, ledger_requests
    from spillway_router.replay.notes import ledger_notes
    from spillway_router.replay.review import DearRequests, review_of, trial_of

    cloud = CloudModel()
    changes, policies = _trials(loaded, cloud)
    recorded, dear = Recorded(), DearRequests()
    with opened(loaded, "read") as ledger, progress() as tell:
        requests = ledger_requests(ledger, start_ms, now_ms(), frozenset(policies[0].terms.policy.any_model))
        now, *rows = compared(recorded.passing(dear.passing(requests)), policies, tell)
    if not now.requests:
        fail(f"there is no request to review since {since}; try a longer --since")
    trials = [trial_of(change, row, now, arguments) for change, row in zip(changes, rows, strict=True)]
    return review_of(recorded.row(), now, dear.groups(), trials, since), ledger_notes(requests, policies[:1], cloud)


def _trials(loaded: Loaded, cloud: CloudModel) -> tuple[list[Change], list[NamedPolicy]]:
    """Return the changes to try, and the policies that they make, after the present one."""
    from spillway_router.config.assemble import assembly_of
    from spillway_router.replay.policies import changed, policy_of
    from spillway_router.replay.review import trial_changes

    today = datetime.now(UTC).date()
    try:
        policies = [policy_of(NOW, loaded, today, cloud)]
        changes = list(trial_changes(loaded, assembly_of(loaded, today)))
        policies += [policy_of(str(change), changed(loaded, [change]), today, cloud) for change in changes]
    except ConfigError as error:
        fail(str(error))
    return changes, policies
