"""A policy tried on the newest requests of a ledger: what `spillway replay` says of them, and no needless work."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import pytest

from spillway_router.config.load import Loaded, parse
from spillway_router.core.replay.replay import CloudModel
from spillway_router.ledger.calendar import DAY_MS, start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.records import Write
from spillway_router.replay.compare import compared, ledger_requests
from spillway_router.replay.policies import change_of, changed, policy_of
from spillway_router.replay.trials import NOW, TRIED, Trial, TrialError, Trials, changes_of, tried
from spillway_router.testing import MemoryLedger
from spillway_router.testing.business import BACKENDS, fill

DAY = date(2026, 11, 2)
NOW_MS = start_of(DAY) + 3 * DAY_MS
CONFIG = f"backends:{BACKENDS}confidence: {{threshold: 0.6, escalate_to: [openai]}}\n"


def loaded_of(text: str = CONFIG) -> Loaded:
    return Loaded(parse(text, {}).with_paths_from(Path.cwd()), None, text, {})


def ledger_of(per_day: int = 20) -> MemoryLedger:
    ledger = MemoryLedger()
    fill(ledger, DAY, 3, Random(3), per_day=per_day)
    return ledger


def newer() -> Entry:
    return Entry(
        kind="charged",
        request_id=f"{first_id(NOW_MS)}{0:017x}",
        attempt_no=1,
        ts=NOW_MS,
        backend="groq",
        provider="generic",
        model="gpt-oss-20b",
        decision="overflow",
        status="ok",
        prompt_tokens=500,
        completion_tokens=100,
    )


def test_a_trial_says_what_the_replay_of_the_same_requests_says() -> None:
    ledger, loaded = ledger_of(), loaded_of()
    result = tried(ledger, loaded, Trial(ttft_ms=50.0), NOW_MS)
    today, cloud = datetime.fromtimestamp(NOW_MS / 1000, UTC).date(), CloudModel()
    policies = [
        policy_of(NOW, loaded, today, cloud),
        policy_of(TRIED, changed(loaded, [change_of("slo.ttft_ms=50")]), today, cloud),
    ]
    requests = [one.past for one in ledger_requests(ledger, 0, NOW_MS, frozenset())]
    assert list(result.rows[1:]) == compared(requests, policies, lambda _: None)
    assert result.rows[1] != result.rows[2]
    assert result.requests == len(requests)
    assert (result.first_ms, result.last_ms) == (start_of(DAY), round(requests[-1].arrival_s * 1000))
    assert not result.older_left_out


def test_only_the_newest_requests_come_again_and_it_is_said() -> None:
    ledger = ledger_of()
    whole = tried(ledger, loaded_of(), Trial(), NOW_MS)
    newest = tried(ledger, loaded_of(), Trial(), NOW_MS, most_rows=10)
    assert (newest.requests, newest.older_left_out) == (10, True)
    assert newest.last_ms == whole.last_ms
    assert newest.first_ms > whole.first_ms


def test_a_result_stands_until_the_ledger_or_the_configuration_changes() -> None:
    ledger, loaded = ledger_of(4), loaded_of()
    trials, trial = Trials(ledger), Trial(order="cloud")
    first = trials.result(loaded, trial, NOW_MS)
    assert trials.result(loaded, trial, NOW_MS + 3_600_000) is first  # nothing new
    ledger.commit([Write((newer(),))])
    assert trials.result(loaded, trial, NOW_MS + 59_000) is first
    later = trials.result(loaded, trial, NOW_MS + 60_000)
    assert later.requests > first.requests
    assert trials.result(loaded_of(), trial, NOW_MS + 60_000) is not later
    assert trials.result(loaded, trial, NOW_MS + DAY_MS) is not later  # the prices of another day


def test_results_are_kept_for_few_trials_only() -> None:
    trials, loaded = Trials(ledger_of(1), most_kept=2), loaded_of()
    first = trials.result(loaded, Trial(), NOW_MS)
    for threshold in (0.1, 0.2):
        trials.result(loaded, Trial(threshold=threshold), NOW_MS)
    assert trials.result(loaded, Trial(), NOW_MS) is not first


def test_orders_name_the_backends_of_the_chain() -> None:
    policy = policy_of(NOW, loaded_of(), DAY, CloudModel()).terms.policy
    orders = {order: changes_of(Trial(order=order), policy)[0].value for order in ("gpu", "cloud", "only-gpu")}
    assert orders == {
        "gpu": ["local", "groq", "openai"],
        "cloud": ["groq", "openai", "local"],
        "only-gpu": ["local"],
    }


def test_without_requests_or_a_gpu_the_trial_says_why() -> None:
    with pytest.raises(TrialError, match="No request is on record yet"):
        tried(MemoryLedger(), loaded_of(), Trial(), NOW_MS)
    clouds = CONFIG + "aliases: {auto: {chain: [groq, openai]}}\n"
    with pytest.raises(TrialError, match="no GPU in the chain"):
        tried(ledger_of(1), loaded_of(clouds), Trial(order="only-gpu"), NOW_MS)


def test_a_trial_rests_between_requests_so_that_the_router_goes_on() -> None:
    """One that never rests uses its whole time for work."""
    ledger, loaded = ledger_of(100), loaded_of()
    worked_s, began_s = time.thread_time(), time.monotonic()
    tried(ledger, loaded, Trial(), NOW_MS)
    worked_s, took_s = time.thread_time() - worked_s, time.monotonic() - began_s
    assert worked_s < 0.9 * took_s
