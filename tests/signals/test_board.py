"""What readers of the board hold stays as it was when they got it."""

from __future__ import annotations

from dataclasses import replace

from tests.core.scenes import GROQ, LOCAL, NOW

from spillway_router.signals.board import Board


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
