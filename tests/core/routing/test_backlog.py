"""The backlog's account never drifts, its prediction grows with the work, and what it learns errs on the safe side."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spillway_router.core.routing.backlog import (
    REASONS,
    Backlog,
    BacklogTuning,
    BacklogView,
    EngineLoad,
    EngineRates,
    Prediction,
    Slo,
    overflow_reasons,
    predict,
)

TOKENS = st.integers(min_value=0, max_value=50_000)
RATES = st.builds(
    EngineRates,
    prefill_tokens_per_s=st.floats(1, 1e6),
    step_time_s=st.floats(0, 1),
    step_time_s_per_sequence=st.floats(0, 0.01),
    kv_capacity_tokens=st.integers(1, 10**7),
    max_sequences=st.integers(1, 1024),
)
VIEWS = st.builds(
    BacklogView,
    in_flight=st.integers(0, 2000),
    waiting_first_token=st.integers(0, 2000),
    prefill_tokens=st.integers(0, 10**6),
    decoding=st.integers(0, 2000),
    kv_tokens=st.integers(0, 10**7),
    recent_prefill_tokens=st.floats(0, 10**6),
    window_s=st.floats(0.1, 100),
)
SLO = Slo(ttft_s=1.0, tpot_s=0.1)


def counts(view: BacklogView) -> BacklogView:
    """The view without what it remembers of the last seconds."""
    return replace(view, recent_prefill_tokens=0.0, window_s=2.0)


class Account(RuleBasedStateMachine):
    """Any order of admissions, first tokens, ends, repeats and strangers, against a plain model of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(EngineRates(), BacklogTuning(max_tickets=8))
        self.open: dict[int, tuple[int, int, bool]] = {}
        self.now = 0.0
        self.taken = 0

    @rule(ticket=st.integers(0, 15), prompt=TOKENS, output=TOKENS, wait=st.floats(0, 10))
    def admit(self, ticket: int, prompt: int, output: int, wait: float) -> None:
        self.now += wait
        if ticket in self.open:
            with pytest.raises(ValueError, match="already in flight"):
                self.backlog.admit(ticket, prompt, output, self.now)
            return
        counted = self.backlog.admit(ticket, prompt, output, self.now)
        assert counted == (len(self.open) < 8)
        if counted:
            self.open[ticket] = (prompt, output, False)
            self.taken += prompt

    @rule(ticket=st.integers(0, 15), wait=st.floats(0, 10))
    def first_token(self, ticket: int, wait: float) -> None:
        self.now += wait
        ttft = self.backlog.first_token(ticket, self.now)
        prompt, output, had_one = self.open.get(ticket, (0, 0, True))
        assert (ttft is None) == had_one
        if ttft is not None:
            assert 0 <= ttft <= self.now
            self.open[ticket] = (prompt, output, True)

    @rule(ticket=st.integers(0, 15), wait=st.floats(0, 10), written=st.none() | TOKENS)
    def finish(self, ticket: int, wait: float, written: int | None) -> None:
        self.now += wait
        self.backlog.finish(ticket, self.now, written)
        self.open.pop(ticket, None)

    @precondition(lambda self: self.open)
    @rule()
    def finish_all(self) -> None:
        for ticket in list(self.open):
            self.finish(ticket, 0.0, None)
        assert counts(self.backlog.view(self.now)) == BacklogView()

    @invariant()
    def account_matches_truth(self) -> None:
        waiting = [p for p, _, had_one in self.open.values() if not had_one]
        assert counts(self.backlog.view(self.now)) == BacklogView(
            in_flight=len(self.open),
            waiting_first_token=len(waiting),
            prefill_tokens=sum(waiting),
            decoding=len(self.open) - len(waiting),
            kv_tokens=sum(p + o for p, o, _ in self.open.values()),
        )

    @invariant()
    def rates_stay_sane(self) -> None:
        rates = self.backlog.rates(self.now)
        assert 0 < rates.prefill_tokens_per_s < math.inf
        assert 0 < rates.step_time_s < math.inf

    @invariant()
    def recent_prompts_are_between_none_and_all(self) -> None:
        view = self.backlog.view(self.now)
        assert 0 <= view.recent_prefill_tokens <= self.taken
        assert view.window_s >= 2


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(deadline=None)
@given(VIEWS, RATES, TOKENS, TOKENS, st.integers(0, 5000))
def test_more_work_never_predicts_less(view: BacklogView, rates: EngineRates, prompt: int, out: int, more: int) -> None:
    base = predict(view, rates, prompt, out)
    assert base.ttft_s >= base.alone_ttft_s >= 0
    busier = [
        predict(view, rates, prompt + more, out),
        predict(view, rates, prompt, out + more),
        predict(replace(view, prefill_tokens=view.prefill_tokens + more), rates, prompt, out),
        predict(replace(view, kv_tokens=view.kv_tokens + more), rates, prompt, out),
        predict(replace(view, recent_prefill_tokens=view.recent_prefill_tokens + more), rates, prompt, out),
        predict(replace(view, in_flight=view.in_flight + more), rates, prompt, out),
        predict(view, replace(rates, prefill_tokens_per_s=rates.prefill_tokens_per_s / (1 + more)), prompt, out),
    ]
    for other in busier:
        assert other.ttft_s >= base.ttft_s
        assert other.tpot_s >= base.tpot_s
        assert other.kv_share >= base.kv_share


@settings(deadline=None)
@given(VIEWS, RATES, TOKENS, TOKENS, st.floats(0.1, 1.0), st.floats(0.01, 10))
def test_a_wider_promise_keeps_what_a_narrow_one_kept(
    view: BacklogView, rates: EngineRates, prompt: int, out: int, margin: float, slo_s: float
) -> None:
    prediction = predict(view, rates, prompt, out)
    reasons = overflow_reasons(prediction, Slo(slo_s, 0.1), margin)
    assert set(reasons) <= set(REASONS)
    assert len(set(reasons)) == len(reasons)
    wider = overflow_reasons(prediction, Slo(2 * slo_s, 0.2), margin)
    assert reasons or not wider


def test_the_formula_by_hand() -> None:
    rates = EngineRates(
        prefill_tokens_per_s=10_000,
        step_time_s=0.01,
        step_time_s_per_sequence=0.001,
        kv_capacity_tokens=100_000,
        max_sequences=4,
    )
    view = BacklogView(in_flight=2, waiting_first_token=1, prefill_tokens=4000, decoding=1, kv_tokens=8000)
    prediction = predict(view, rates, 1000, 200)
    pace = 0.013 / (1 - 1000 / 20_000)
    assert prediction.tpot_s == pytest.approx(pace)
    assert prediction.ttft_s == pytest.approx(0.5 + pace)
    assert prediction.alone_ttft_s == pytest.approx(0.11)
    assert prediction.kv_share == pytest.approx(0.092)
    # Over the last 2 s 4000 tokens came in, and 1000 now: of every second the reading takes a quarter.
    assert predict(replace(view, recent_prefill_tokens=4000), rates, 1000, 200).tpot_s == pytest.approx(0.013 / 0.75)
    # Two requests too many for four slots: each slot frees every 200 tokens x 14 ms, and a twentieth for the reading.
    full = predict(replace(view, in_flight=5), rates, 1000, 200)
    assert full.ttft_s == pytest.approx(0.5 + 0.014 / 0.95 * (1 + 2 * 200 / 4))


@pytest.mark.parametrize(
    ("prediction", "reasons"),
    [
        (Prediction(ttft_s=0.85, tpot_s=0.05, kv_share=0.9, alone_ttft_s=0.1), ()),
        (Prediction(ttft_s=0.86, tpot_s=0.05, kv_share=0.5, alone_ttft_s=0.1), ("queue",)),
        (Prediction(ttft_s=0.90, tpot_s=0.05, kv_share=0.5, alone_ttft_s=0.86), ("slo",)),
        (Prediction(ttft_s=0.10, tpot_s=0.11, kv_share=0.5, alone_ttft_s=0.1), ("slo",)),
        (Prediction(ttft_s=0.10, tpot_s=0.05, kv_share=0.91, alone_ttft_s=0.1), ("kv",)),
        (Prediction(ttft_s=2.00, tpot_s=0.11, kv_share=0.91, alone_ttft_s=0.1), ("queue", "slo", "kv")),
        (Prediction(ttft_s=2.00, tpot_s=0.11, kv_share=0.91, alone_ttft_s=1.5), ("slo", "kv")),
    ],
)
def test_reasons_say_what_is_wrong(prediction: Prediction, reasons: tuple[str, ...]) -> None:
    assert overflow_reasons(prediction, SLO, 0.85) == reasons


@pytest.mark.parametrize(
    "bad",
    [
        {"prefill_tokens_per_s": 0.0},
        {"prefill_tokens_per_s": math.nan},
        {"kv_capacity_tokens": 0},
        {"max_sequences": -1},
        {"step_time_s": -0.1},
        {"step_time_s_per_sequence": math.inf},
    ],
)
def test_impossible_rates_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EngineRates(**bad)  # type: ignore[arg-type]


def serve(backlog: Backlog, count: int, tokens: int, tokens_per_s: float, start: float = 0.0) -> float:
    """One request after the other at an engine of known speed; returns the end."""
    now = start
    for ticket in range(count):
        backlog.admit(ticket, tokens, 10, now)
        now += tokens / tokens_per_s
        backlog.first_token(ticket, now)
        backlog.finish(ticket, now, None)
    return now


@pytest.mark.parametrize("true_rate", [500.0, 3000.0, 12_000.0, 60_000.0])
def test_the_prefill_rate_is_learned_from_ttfts_alone(true_rate: float) -> None:
    backlog = Backlog(EngineRates(12_000))
    now = serve(backlog, 60, 4000, true_rate)
    assert backlog.rates(now).prefill_tokens_per_s == pytest.approx(true_rate, rel=0.15)


def test_a_slow_engine_with_short_prompts_is_found_out() -> None:
    backlog = Backlog(EngineRates(12_000))
    now = serve(backlog, 60, 300, 500.0)
    assert backlog.rates(now).prefill_tokens_per_s == pytest.approx(500, rel=0.15)


def test_short_prompts_say_nothing_of_a_fast_engine() -> None:
    backlog = Backlog(EngineRates(12_000))
    for ticket in range(50):
        backlog.admit(ticket, 20, 10, float(ticket))
        backlog.first_token(ticket, ticket + 0.02)
        backlog.finish(ticket, ticket + 0.02, 5)
    assert backlog.rates(50.0).prefill_tokens_per_s == 12_000


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e-3), min_size=1, max_size=30))
def test_prefix_cache_hits_do_not_run_away_with_the_rate(ttfts: list[float]) -> None:
    backlog = Backlog(EngineRates(12_000), BacklogTuning(prior_samples=20))
    for ticket, ttft in enumerate(ttfts):
        backlog.admit(ticket, 8000, 10, float(ticket))
        backlog.first_token(ticket, ticket + ttft)
        backlog.finish(ticket, ticket + ttft, None)
    # Each hit moves the mean of seconds per token by a bounded step, however fast it was.
    assert backlog.rates(0.0).prefill_tokens_per_s <= 12_000 * (1 / (1 - 0.05 * 0.75)) ** len(ttfts) * 1.0001


def test_work_that_was_cancelled_makes_no_engine_look_fast() -> None:
    backlog = Backlog(EngineRates(12_000))
    backlog.admit(1, 100_000, 10, 0.0)
    backlog.admit(2, 4000, 10, 0.0)
    backlog.finish(1, 0.01, None)
    backlog.first_token(2, 0.01 + 4000 / 12_000)
    assert backlog.rates(1.0).prefill_tokens_per_s <= 12_000


def test_clients_that_leave_make_no_engine_look_slow() -> None:
    backlog = Backlog(EngineRates(12_000))
    for number in range(50):
        at_s = float(number)
        backlog.admit(2 * number, 20_000, 10, at_s)
        backlog.admit(2 * number + 1, 4000, 10, at_s)
        backlog.finish(2 * number, at_s + 1.9, None)  # nearly all of it was read by then
        backlog.first_token(2 * number + 1, at_s + 24_000 / 12_000)
        backlog.finish(2 * number + 1, at_s + 2.1, None)
    assert backlog.rates(50.0).prefill_tokens_per_s == pytest.approx(12_000)


def test_an_engine_that_is_slow_is_found_out_although_clients_leave() -> None:
    backlog = Backlog(EngineRates(12_000))
    for number in range(50):
        at_s = 100.0 * number
        backlog.admit(2 * number, 4000, 10, at_s)
        backlog.admit(2 * number + 1, 4000, 10, at_s)
        backlog.finish(2 * number, at_s + 0.1, None)
        backlog.first_token(2 * number + 1, at_s + 8.0)
        backlog.finish(2 * number + 1, at_s + 8.1, None)
    assert backlog.rates(5000.0 - 90.0).prefill_tokens_per_s < 1500


def test_prompts_that_the_engine_refused_are_no_reading() -> None:
    backlog = Backlog(PACE)
    backlog.admit(0, 100, 100, 0.0)
    quiet = predict(backlog.view(0.0), backlog.rates(0.0), 100, 100)
    for ticket in range(1, 100):
        backlog.admit(ticket, 30_000, 100, 0.0)
        backlog.finish(ticket, 0.3, None, refused=True)
    view = backlog.view(0.3)
    assert view.recent_prefill_tokens < 200
    assert predict(view, backlog.rates(0.3), 100, 100).tpot_s == pytest.approx(quiet.tpot_s, rel=0.02)
    assert backlog.view(0.3).window_s < 3.0, "their length says nothing of the other prompts"


def test_of_a_prompt_that_was_given_up_counts_what_may_have_been_read() -> None:
    backlog = Backlog(PACE)
    backlog.admit(1, 30_000, 100, 0.0)
    backlog.finish(1, 0.5, None)
    left = math.exp(-0.5 / backlog.view(0.5).window_s)
    assert backlog.view(0.5).recent_prefill_tokens == pytest.approx(5000 * left, rel=0.01)


def test_an_answer_that_nobody_reads_is_set_aside_when_the_engine_must_have_finished() -> None:
    backlog = Backlog(PACE)
    backlog.admit(1, 100, 50, 0.0)
    assert not backlog.set_aside(1, 1.0), "its prompt is still being read"
    backlog.first_token(1, 1.0)
    assert not backlog.set_aside(1, 1.2)
    assert backlog.view(1.2).in_flight == 1
    assert backlog.set_aside(1, 1.6)
    assert counts(backlog.view(1.6)) == counts(Backlog(PACE).view(1.6))
    backlog.finish(1, 100.0, 50)
    assert backlog.set_aside(1, 100.0)
    assert backlog.rates(100.0).step_time_s == PACE.step_time_s


def test_no_pace_is_learned_from_an_answer_that_had_to_wait_for_its_reader() -> None:
    backlog = Backlog(PACE)
    backlog.admit(1, 100, 50, 0.0)
    backlog.first_token(1, 0.1)
    backlog.finish(1, 60.0, 50, timed=False)
    assert backlog.rates(60.0).step_time_s == PACE.step_time_s
    assert backlog.expected_output() < 300, "its length is as good as any"


def test_time_per_token_follows_whole_answers() -> None:
    backlog = Backlog(EngineRates(step_time_s=0.01, step_time_s_per_sequence=0.0))
    for ticket in range(200):
        backlog.admit(ticket, 100, 10, float(ticket))
        backlog.first_token(ticket, ticket + 0.05)
        backlog.finish(ticket, ticket + 0.05 + 99 * 0.04, 100)
    assert backlog.rates(200.0).step_time_s == pytest.approx(0.04, rel=0.05)
    assert backlog.expected_output() in (100, 101)
    assert backlog.expected_output(max_tokens=7) == 7


PACE = EngineRates(10_000, 0.01, 0.0)


def test_prompts_taken_in_lately_stretch_the_time_per_token_and_are_forgotten() -> None:
    backlog = Backlog(PACE)
    backlog.admit(1, 1000, 100, 0.0)
    quiet = predict(backlog.view(0.0), backlog.rates(0.0), 0, 100).tpot_s
    for ticket in range(2, 17):
        backlog.admit(ticket, 1000, 100, 0.0)
    view = backlog.view(0.0)
    assert view.recent_prefill_tokens == 16_000
    assert view.window_s == pytest.approx(2.4, rel=0.03), "24 prompts of about 1000 tokens at 10,000 tokens/s"
    busy = predict(view, backlog.rates(0.0), 0, 100).tpot_s
    assert busy == pytest.approx(0.01 / (1 - 1.6 / view.window_s))
    assert busy > 2.5 * quiet
    later = backlog.view(view.window_s)
    assert later.recent_prefill_tokens == pytest.approx(16_000 / math.e)
    assert predict(backlog.view(60.0), backlog.rates(60.0), 0, 100).tpot_s == pytest.approx(0.01, rel=1e-6)


def test_a_prompt_alone_at_the_engine_slows_nobody() -> None:
    idle = Backlog(PACE)
    alone = predict(idle.view(0.0), idle.rates(0.0), 50_000, 100)
    assert alone.tpot_s == pytest.approx(0.01)
    idle.admit(1, 100, 100, 0.0)
    beside = predict(idle.view(0.0), idle.rates(0.0), 50_000, 100)
    assert overflow_reasons(beside, Slo(100.0, 0.05), 0.85) == ("slo",)


def test_more_work_than_the_window_holds_still_gives_a_finite_pace() -> None:
    flooded = BacklogView(in_flight=50, recent_prefill_tokens=1e9)
    assert predict(flooded, PACE, 1000, 100).tpot_s == pytest.approx(1.0)


def test_the_reading_of_other_prompts_is_not_taken_for_slow_steps() -> None:
    """Each answer of 100 tokens at 10 ms is held up by four prompts of 1000 tokens: 0.4 s at 10,000 tokens/s."""
    backlog = Backlog(PACE, BacklogTuning(prior_samples=10_000, ewma_weight=0.001))
    steps = Backlog(PACE)
    for number in range(100):
        start, first = 10.0 * number, 5 * number
        for each in (backlog, steps):
            each.admit(first, 1000, 100, start)
            each.first_token(first, start + 0.1)
        for other in range(1, 5):
            backlog.admit(first + other, 1000, 10, start + 0.1 * other)
            backlog.first_token(first + other, start + 0.1 + 0.1 * other)
            backlog.finish(first + other, start + 0.1 + 0.1 * other, None)
        for each in (backlog, steps):
            each.finish(first, start + 0.1 + 99 * 0.01 + 0.4, 100)
    assert backlog.rates(1000.0).step_time_s == pytest.approx(0.01, rel=0.02)
    # The same answers with nobody beside them were slow of their own.
    assert steps.rates(1000.0).step_time_s == pytest.approx(0.014, rel=0.02)


def test_load_from_elsewhere_counts_for_the_pace_while_it_waits() -> None:
    backlog = Backlog(PACE)
    backlog.observe_engine(EngineLoad(waiting=10, running=3, kv_usage=0.1), 0.0)
    view = backlog.view(0.0)
    assert view.recent_prefill_tokens == view.prefill_tokens == 10 * 1024
    assert predict(view, PACE, 0, 100).tpot_s == pytest.approx(0.01 / (1 - 1.024 / view.window_s))


def test_a_gloomy_belief_is_tried_again_by_one_request_on_an_idle_engine() -> None:
    backlog = Backlog(EngineRates(12_000))
    now = serve(backlog, 40, 4000, 200.0)
    assert overflow_reasons(predict(backlog.view(now), backlog.rates(now), 4000, 100), SLO, 0.85) == ("slo",)
    later = now + 31
    assert overflow_reasons(predict(backlog.view(later), backlog.rates(later), 4000, 100), SLO, 0.85) == ()
    backlog.admit(999, 4000, 100, later)
    assert backlog.rates(later).prefill_tokens_per_s < 300
    backlog.first_token(999, later + 4000 / 12_000)
    backlog.finish(999, later + 1, 50)
    assert backlog.rates(later + 1).prefill_tokens_per_s > 200


def test_a_gloomy_time_per_token_is_tried_again_too() -> None:
    backlog = Backlog(EngineRates(step_time_s=0.01, step_time_s_per_sequence=0.0))
    for ticket in range(100):
        backlog.admit(ticket, 100, 10, float(ticket))
        backlog.first_token(ticket, ticket + 0.05)
        backlog.finish(ticket, ticket + 0.05 + 9 * 0.5, 10)
    slow = predict(backlog.view(110.0), backlog.rates(110.0), 100, 100)
    assert overflow_reasons(slow, SLO, 0.85) == ("slo",)
    again = predict(backlog.view(140.0), backlog.rates(140.0), 100, 100)
    assert overflow_reasons(again, SLO, 0.85) == ()


def test_load_from_elsewhere_is_only_what_exceeds_our_own_count() -> None:
    backlog = Backlog(EngineRates(kv_capacity_tokens=100_000))
    for ticket in range(4):
        backlog.admit(ticket, 1024, 300, 0.0)
    before = backlog.view(0.0)
    backlog.observe_engine(EngineLoad(waiting=4, running=0, kv_usage=0.01), 0.0)
    assert backlog.view(0.0) == before
    assert before.recent_prefill_tokens == 4 * 1024
    backlog.observe_engine(EngineLoad(waiting=6, running=3, kv_usage=0.5), 1.0)
    seen = backlog.view(1.0)
    assert (seen.in_flight, seen.waiting_first_token, seen.decoding) == (9, 6, 3)
    assert seen.prefill_tokens == 6 * 1024
    assert seen.kv_tokens == 50_000
    assert counts(backlog.view(6.1)) == counts(before), "a sample older than five seconds is dropped"


def test_gauges_that_lag_do_not_bring_ended_requests_back() -> None:
    backlog = Backlog(EngineRates())
    for ticket in range(5):
        backlog.admit(ticket, 100, 10, 0.0)
    for ticket in range(5):
        backlog.finish(ticket, 0.5, 1)
    backlog.observe_engine(EngineLoad(waiting=0, running=5, kv_usage=0.0), 0.5)
    assert counts(backlog.view(0.5)) == BacklogView()
    backlog.observe_engine(EngineLoad(waiting=0, running=5, kv_usage=0.0), 1.5)
    assert backlog.view(1.5).decoding == 5, "still there a scrape later: somebody else's"


@pytest.mark.parametrize("load", [None, EngineLoad(math.nan, 1, 0.1), EngineLoad(1, math.inf, 0.1)])
def test_a_scrape_without_figures_drops_the_last_one(load: EngineLoad | None) -> None:
    backlog = Backlog(EngineRates())
    backlog.observe_engine(EngineLoad(5, 5, 0.5), 0.0)
    assert backlog.view(0.0).in_flight == 10
    backlog.observe_engine(load, 0.1)
    assert counts(backlog.view(0.1)) == BacklogView()


def test_capacities_that_the_engine_reports_replace_the_configured_ones() -> None:
    backlog = Backlog(EngineRates())
    backlog.observe_capacity(kv_capacity_tokens=5000, max_sequences=8)
    assert (backlog.rates(0.0).kv_capacity_tokens, backlog.rates(0.0).max_sequences) == (5000, 8)


def test_the_engine_shows_how_many_it_runs_at_once() -> None:
    backlog = Backlog(EngineRates(max_sequences=256))

    def sequences(running: int, waiting: int) -> int:
        backlog.observe_engine(EngineLoad(waiting=waiting, running=running, kv_usage=0.1), 1.0)
        return backlog.rates(1.0).max_sequences

    assert sequences(8, 0) == 256  # nobody waits: it may run more
    assert sequences(8, 5) == 8
    assert sequences(3, 5) == 7  # a scrape between two answers
    assert sequences(8, 5) == 8
    assert sequences(12, 1) == 12
    beliefs = [sequences(2, 0) for _ in range(60)]
    assert beliefs == sorted(beliefs)
    assert beliefs[-1] == 256
    assert backlog.configured_sequences == 256


def test_a_wait_for_a_free_sequence_does_not_make_reading_look_slow() -> None:
    """A flood of short prompts: two are answered at a time, ten tokens in half a second, and eight more wait inside the
    engine. Who would wait at the gate instead is not to be sent away for it."""
    rates = EngineRates(prefill_tokens_per_s=10_000.0, step_time_s=0.05, max_sequences=2)
    backlog, waiting, running, now = Backlog(rates), deque[int](), deque[int](), 0.0
    for ticket in range(400):
        assert backlog.admit(ticket, 30, 10, now)
        waiting.append(ticket)
        if len(waiting) > 8:
            now += 0.25
            backlog.finish(running.popleft(), now, 10)
        if len(running) < 2:
            started = waiting.popleft()
            backlog.first_token(started, now + 0.003)
            running.append(started)
    believed = backlog.rates(now)
    assert believed.prefill_tokens_per_s > 5_000
    assert predict(backlog.view(now), believed, 30, 10).tpot_s < 0.1
