"""A replay loses no request, gives the same for the same, keeps every budget, and decides as the router decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import CHEAP, DEAR, GROQ, LOCAL, OPENAI

from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage, price
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.replay.past import PastRequest
from spillway_router.core.replay.replay import CloudModel, Replay, ReplayResult, ReplayTerms
from spillway_router.core.replay.tally import Waits
from spillway_router.core.routing.backlog import Slo
from spillway_router.core.routing.model import Caller
from spillway_router.core.routing.policy import ConfidenceRule, Policy
from spillway_router.core.routing.rules import Conditions, Rule, Rules, Span

POLICY = Policy(
    "v1",
    {b.name: b for b in (LOCAL, GROQ, OPENAI)},
    {"auto": ("local", "groq", "openai"), "cloud": ("openai",)},
    slo=Slo(0.5, 0.1),
    confidence=ConfidenceRule(0.8, ("openai",)),
)
SLOW = EngineModel(batched_tokens=256, sequences=8, kv_capacity_tokens=20_000)
TERMS = ReplayTerms(POLICY, models={"local": SLOW})
PASTS = st.lists(
    st.builds(
        lambda gap_s, prompt, output, confidence, model, private, key: (
            gap_s,
            PastRequest(
                number=0,
                arrival_s=0.0,
                prompt_tokens=prompt,
                output_tokens=output,
                confidence=confidence,
                model=model,
                private=private,
                caller=Caller(key_id=key, tier="free" if key == "b" else ""),
            ),
        ),
        st.floats(0, 0.5),
        st.integers(1, 4000),
        st.integers(1, 300),
        st.none() | st.floats(0, 1),
        st.sampled_from(("auto", "auto", "cloud", "local")),
        st.booleans(),
        st.sampled_from(("", "a", "b")),
    ),
    min_size=1,
    max_size=40,
)


def timed(drawn: list[tuple[float, PastRequest]]) -> list[PastRequest]:
    at_s, requests = 1_000_000.0, []
    for number, (gap_s, past) in enumerate(drawn):
        at_s += gap_s
        requests.append(replace(past, number=number, arrival_s=at_s))
    return requests


def replayed(requests: list[PastRequest], terms: ReplayTerms = TERMS) -> ReplayResult:
    run = Replay(terms)
    for request in requests:
        run.arrive(request)
    return run.end()


@settings(max_examples=80, deadline=None)
@given(PASTS)
def test_every_request_ends_once_and_the_same_requests_give_the_same_result(
    drawn: list[tuple[float, PastRequest]],
) -> None:
    requests = timed(drawn)
    result = replayed(requests)
    tally = result.tally
    assert tally.requests == len(requests) == sum(tally.kinds.values())
    assert sum(tally.refusals.values()) == tally.kinds["refused"]
    answered = sum(spending.requests for spending in tally.backends.values())
    assert answered == len(requests) - tally.kinds["refused"]
    local = tally.backends.get("local")
    assert tally.waits.count == (0 if local is None else local.requests)
    assert result.end_s >= requests[-1].arrival_s
    assert result.busy_s["local"] <= result.end_s - result.start_s + 1e-6
    again = replayed(requests)
    assert (again.tally.kinds, again.tally.cloud_nano, again.end_s) == (tally.kinds, tally.cloud_nano, result.end_s)
    assert again.tally.waits.quantile(0.95) == tally.waits.quantile(0.95)


@settings(max_examples=80, deadline=None)
@given(PASTS)
def test_private_requests_never_reach_a_cloud(drawn: list[tuple[float, PastRequest]]) -> None:
    requests = [replace(past, private=True) for past in timed(drawn)]
    tally = replayed(requests).tally
    assert set(tally.backends) <= {"local"}
    assert tally.cloud_nano == 0


@settings(max_examples=80, deadline=None)
@given(PASTS, st.integers(0, 20_000_000), st.sampled_from(("all", "backend:openai", "each key", "tier:free")))
def test_no_budget_is_overrun(drawn: list[tuple[float, PastRequest]], limit_nano: int, scope: str) -> None:
    line = BudgetLine(scope, "month", limit_nano)
    terms = replace(TERMS, budgets=(line,))
    result = replayed(timed(drawn), terms)
    assert result.most_of_budgets <= 1
    if scope == "all":
        assert result.tally.cloud_nano <= limit_nano
    if scope == "backend:openai" and "openai" in result.tally.backends:
        assert result.tally.backends["openai"].nano <= limit_nano


def test_a_cloud_costs_what_its_tokens_cost() -> None:
    asked = PastRequest(number=0, arrival_s=0.0, prompt_tokens=1000, output_tokens=50, model="cloud")
    tally = replayed([asked]).tally
    assert tally.kinds == {"routed": 1}
    assert tally.cloud_nano == price(Usage(1000, 50), DEAR)


def test_a_request_that_the_engine_would_keep_waiting_overflows_to_the_first_cloud() -> None:
    requests = [PastRequest(number=n, arrival_s=n * 0.001, prompt_tokens=3000, output_tokens=100) for n in range(30)]
    tally = replayed(requests, replace(TERMS, cloud=CloudModel(ttft_s=0.1))).tally
    assert tally.kinds["overflow"] > 0
    assert tally.backends["groq"].nano == tally.kinds["overflow"] * price(Usage(3000, 100), CHEAP)


@pytest.mark.parametrize(("confidence", "kind"), [(None, "local"), (0.8, "local"), (0.79, "escalated")])
def test_an_answer_is_escalated_by_its_recorded_confidence(confidence: float | None, kind: str) -> None:
    asked = PastRequest(
        number=0, arrival_s=0.0, prompt_tokens=10, output_tokens=5, confidence=confidence, local_right=False
    )
    tally = replayed([asked]).tally
    assert tally.kinds == {kind: 1}
    assert (tally.judged, tally.right) == (1, int(kind == "escalated"))


def test_a_cloud_that_fails_is_followed_by_the_next_one() -> None:
    requests = [
        PastRequest(number=n, arrival_s=10.0 * n, prompt_tokens=10, output_tokens=5, model="cloud") for n in range(400)
    ]
    cloudy = replace(POLICY, aliases={**POLICY.aliases, "cloud": ("groq", "openai")})
    kinds = {
        fails: replayed(requests, replace(TERMS, policy=cloudy, cloud=CloudModel(fails=fails))).tally
        for fails in (0.0, 0.25, 1.0)
    }
    assert kinds[0.0].kinds == {"routed": 400}
    assert 60 < kinds[0.25].kinds["fallback"] < 100
    assert 10 < kinds[0.25].refusals["upstream_error"] < 45
    assert kinds[1.0].refusals == {"upstream_error": 400}


def test_a_rule_about_the_confidence_chooses_the_step() -> None:
    hopeless = Rule("hopeless", Conditions(confidence_below=0.3), confidence=ConfidenceRule(0.8, ("openai",)))
    requests = [
        PastRequest(number=n, arrival_s=10.0 * n, prompt_tokens=10, output_tokens=5, confidence=confidence)
        for n, confidence in enumerate((0.1, 0.5, 0.9))
    ]
    stepped = replace(POLICY, confidence=ConfidenceRule(0.8, ("groq", "openai")))
    tally = replayed(requests, replace(TERMS, policy=stepped, rules=Rules((hopeless,)))).tally
    assert tally.kinds == {"escalated": 2, "local": 1}
    assert tally.backends.keys() == {"local", "groq", "openai"}


def test_rules_apply_as_they_do_in_the_router() -> None:
    hard = Rule("hard ones", Conditions(complexity=Span(at_least=5)), chain=("openai",))
    requests = [
        PastRequest(number=n, arrival_s=10.0 * n, prompt_tokens=10, output_tokens=5, complexity=complexity)
        for n, complexity in enumerate((4, 5, None))
    ]
    tally = replayed(requests, replace(TERMS, rules=Rules((hard,)))).tally
    assert tally.kinds == {"local": 2, "routed": 1}
    assert tally.rules["hard ones"].requests == 1


def test_waits_are_right_to_half_a_percent() -> None:
    waits = Waits()
    for number in range(1, 1001):
        waits.add(number / 100)
    assert waits.quantile(0.5) == pytest.approx(5.0, rel=0.006)
    assert waits.quantile(0.95) == pytest.approx(9.5, rel=0.006)
    assert Waits().quantile(0.5) == 0.0
