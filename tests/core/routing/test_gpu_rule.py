"""A busy GPU makes requests overflow only where the policy says so, and only if it is known to be busy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.scenes import CLOUD, IDLE, POLICY, facts, names, signals

from spillway_router.core.routing.policy import decide
from spillway_router.core.routing.rules import Conditions, Moment, Rule, Rules

ASKS = replace(POLICY, gpu_busy_above=0.95)
SLOW = replace(CLOUD, ttft_s=5.0)


def test_it_is_off_by_default() -> None:
    decision = decide(facts(), signals(local=replace(IDLE, gpu_utilisation=1.0)), POLICY)
    assert (decision.kind, decision.reasons) == ("local", ())


@pytest.mark.parametrize(("share", "kind"), [(0.96, "overflow"), (0.95, "local"), (0.0, "local"), (None, "local")])
def test_a_gpu_that_is_known_to_be_busier_moves_requests(share: float | None, kind: str) -> None:
    """Also to clouds that are slower: who wants the rule wants the GPU spared."""
    decision = decide(facts(), signals(local=replace(IDLE, gpu_utilisation=share), groq=SLOW, openai=SLOW), ASKS)
    assert (decision.kind, decision.reasons) == ((kind, ("gpu",)) if kind == "overflow" else (kind, ()))


def test_without_another_backend_the_request_stays() -> None:
    only = replace(ASKS, aliases={"auto": ("local",)})
    decision = decide(facts(), signals(local=replace(IDLE, gpu_utilisation=1.0)), only)
    assert (names(decision), decision.reasons) == (["local"], ())


def test_an_engine_on_another_gpu_comes_first() -> None:
    decision = decide(facts(model="both"), signals(local=replace(IDLE, gpu_utilisation=1.0)), ASKS)
    assert names(decision)[0] == "spare"


@pytest.mark.parametrize(("share", "holds"), [(0.9, True), (0.8, False), (None, False)])
def test_a_rule_may_ask_how_busy_the_gpu_is(share: float | None, holds: bool) -> None:
    rules = Rules((Rule("busy", Conditions(gpu_busy_above=0.8), chain=("groq",)),))
    assert rules.read_gpus
    assert rules.matching(facts(), Moment(0.0, gpu_utilisation=share)) == ((0,) if holds else ())
    assert rules.rules[0].when.tokens == ("gpu",)
