"""What readers of the board hold stays as it was when they got it, and calls teach it only what they can know."""

from __future__ import annotations

import math
from dataclasses import replace

from tests.core.scenes import GROQ, LOCAL, NOW

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import BackendSignals, Candidate, Outcome
from spillway_router.signals.board import Board, TrackedCall


def board_of(count: int) -> Board:
    board = Board()
    board.update([*(replace(LOCAL, name=f"engine{number}") for number in range(count)), GROQ], {})
    return board


def test_a_snapshot_stays_as_it_was_when_the_board_learns_more() -> None:
    board = board_of(2)
    before = board.current(NOW)
    board.health("engine1", "up", "")
    after = board.current(NOW)
    assert [before.backends[name].health for name in before.backends] == ["starting", "starting", "up"]
    assert [after.backends[name].health for name in after.backends] == ["starting", "up", "up"]
    assert list(after.backends) == ["engine0", "engine1", "groq"]
    assert after.backends["engine0"] is before.backends["engine0"]


def test_what_has_not_changed_is_not_collected_again() -> None:
    board = board_of(64)
    assert board.current(NOW).backends is board.current(NOW).backends


def test_what_one_reader_caused_to_be_made_anew_is_seen_by_the_next() -> None:
    board = board_of(2)
    board.current(NOW)
    board.health("engine0", "up", "")
    one = board.view("engine0", NOW)
    assert one is not None
    assert board.current(NOW).backends["engine0"] is one
    assert board.view("unheard of", NOW) is None


def test_a_snapshot_grows_old() -> None:
    board = board_of(1)
    before = board.current(NOW).backends["engine0"]
    assert board.current(NOW + 1.0).backends["engine0"] is not before


def test_backends_that_left_are_gone_and_those_that_stay_keep_what_was_learned() -> None:
    board = board_of(3)
    board.health("engine1", "up", "")
    board.current(NOW)
    board.update([replace(LOCAL, name="engine1"), GROQ], {})
    now = board.current(NOW).backends
    assert {name: one.health for name, one in now.items()} == {"engine1": "up", "groq": "up"}


def seen(board: Board, name: str, at_s: float) -> BackendSignals:
    view = board.view(name, at_s)
    assert view is not None
    return view


def call_of(board: Board, backend: str, caller: str, at_s: float) -> TrackedCall:
    asked = LOCAL if backend == "engine0" else GROQ
    candidate = Candidate(
        replace(asked, name=backend), (), ttft_s=0.1, prompt_tokens=30_000, output_tokens=100, bound_nano=0
    )
    call = board.sent(candidate, 90_000, 2.0, at_s, caller)
    assert call is not None
    return call


def test_streams_that_broke_after_their_clients_let_them_wait_say_nothing_of_a_cloud() -> None:
    board = board_of(1)
    for caller in ("a", "b", "c", "d"):
        call = call_of(board, "groq", caller, NOW)
        board.first_event(call, NOW + 0.1)
        call.held_up_s = 20.0
        board.ended(call, Outcome("failed", 200, "cut", billed=True), NOW + 21.0, streamed=True)
    now = seen(board, "groq", NOW + 21.0)
    assert not now.breaker_open
    assert now.breaker_open_for == ()


def test_streams_that_broke_by_themselves_still_open_the_breaker() -> None:
    board = board_of(1)
    for caller in ("a", "b", "c", "d"):
        call = call_of(board, "groq", caller, NOW)
        board.first_event(call, NOW + 0.1)
        call.held_up_s = 0.2
        board.ended(call, Outcome("failed", 200, "cut", billed=True), NOW + 21.0, streamed=True)
    assert seen(board, "groq", NOW + 21.0).breaker_open


def test_an_old_answer_that_is_read_at_last_does_not_prove_that_its_backend_works_now() -> None:
    board = board_of(1)
    late = call_of(board, "groq", "a", NOW)
    board.first_event(late, NOW + 0.1)
    for caller in ("b", "c", "d"):
        board.ended(call_of(board, "groq", caller, NOW + 1), Outcome("failed", 0, "reset"), NOW + 2, streamed=True)
    late.held_up_s = 5.0
    board.ended(late, Outcome("ok", 200, usage=Usage(7, 9)), NOW + 2.1, streamed=True)
    assert seen(board, "groq", NOW + 2.2).breaker_open
    assert board.last_ok_at("groq") == -math.inf


def test_prompts_that_an_engine_refuses_leave_room_for_others() -> None:
    board = board_of(1)
    board.health("engine0", "up", "")
    for number in range(40):
        call = call_of(board, "engine0", f"k{number % 6}", NOW + number / 100)
        board.ended(call, Outcome("rejected", 400, "no"), NOW + number / 100 + 0.2, streamed=True)
    backlog = seen(board, "engine0", NOW + 1.0).backlog
    assert backlog is not None
    assert backlog.recent_prefill_tokens < 100


def test_an_engine_that_has_just_answered_the_router_is_open_for_all_however_many_fail_at_it() -> None:
    board = board_of(1)
    board.health("engine0", "up", "")
    asked: list[str] = []
    board.on_doubt = asked.append
    board.proven("engine0", True, NOW)
    for number in range(60):
        at_s = NOW + number / 100
        board.ended(
            call_of(board, "engine0", f"k{number % 6}", at_s), Outcome("failed", 500, "no"), at_s, streamed=True
        )
    assert not seen(board, "engine0", NOW + 0.7).breaker_open
    assert asked, "it is asked for a token again"
    board.proven("engine0", False, NOW + 0.7)
    for number in range(3):
        at_s = NOW + 0.7 + number / 100
        board.ended(call_of(board, "engine0", f"k{number}", at_s), Outcome("failed", 500, "no"), at_s, streamed=True)
    assert seen(board, "engine0", NOW + 0.8).breaker_open
