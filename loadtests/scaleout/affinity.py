"""Judges whether conversations stay where their prefix is, and leave an engine that ended. Turns in, figures out; no
I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation: which conversation, router and phase, and which engine answered. `fault` is empty for
    a complete answer.
    """

    session: int
    number: int
    router: int
    phase: str
    backend: str
    fault: str


@dataclass(frozen=True, slots=True)
class AffinityShare:
    """The conversations of one plan.

    Counts: turns sent, turns lost, turns with a predecessor, and how many of these the same engine answered as the
    predecessor. Also the engines that answered, and the share of prompt tokens found in prefix caches.
    """

    turns: int
    lost: int
    followed: int
    kept: int
    engines: tuple[str, ...]
    cached_share: float

    @property
    def kept_share(self) -> float:
        """Return the share of following turns that stayed on their engine, 0 to 1."""
        return self.kept / self.followed if self.followed else 0.0


@dataclass(frozen=True, slots=True)
class Moved:
    """Conversations while an engine ends.

    Counts: those on the engine before, those of them that other engines answered afterwards, those elsewhere before,
    and those of the latter that left their engine although it was healthy.
    """

    there: int
    moved: int
    elsewhere: int
    strayed: int
    lost: int


def held(turns: Sequence[Turn], cached_share: float) -> AffinityShare:
    """Count what happened to these conversations."""
    pairs = [pair for one in by_session(turns) for pair in pairwise(one)]
    return AffinityShare(
        turns=len(turns),
        lost=sum(bool(turn.fault) for turn in turns),
        followed=len(pairs),
        kept=sum(before.backend == after.backend != "" for before, after in pairs),
        engines=tuple(sorted({turn.backend for turn in turns if turn.backend})),
        cached_share=round(cached_share, 4),
    )


def moved(turns: Sequence[Turn], ended: str) -> Moved:
    """Count what happened to conversations over the phases `before`, `during` and `after` the end of one engine."""
    homes = {one[0].session: _last(one, "before") for one in by_session(turns)}
    there = {session for session, home in homes.items() if home == ended}
    left = {
        session
        for session in there
        if all(turn.backend not in ("", ended) for turn in turns if turn.session == session and turn.phase == "after")
    }
    strayed = {turn.session for turn in turns if turn.session not in there and turn.backend != homes[turn.session]}
    return Moved(
        there=len(there),
        moved=len(left),
        elsewhere=len(homes) - len(there),
        strayed=len(strayed),
        lost=sum(bool(t.fault) for t in turns),
    )


def faults(kept: AffinityShare, without: AffinityShare, *, prefix_cache: bool) -> list[str]:
    """Return why affinity is not shown; empty when it is. `kept` sent `x-session-id`, `without` did not."""
    problems = []
    if kept.kept < kept.followed:
        problems.append(
            f"{kept.followed - kept.kept} of {kept.followed} turns left a healthy engine that had their prefix"
        )
    if len(kept.engines) < 2:
        problems.append(f"conversations were on {', '.join(kept.engines) or 'no engine'} only: that shows no affinity")
    if prefix_cache and kept.cached_share <= without.cached_share:
        problems.append(
            f"{kept.cached_share:.1%} of prompt tokens came from prefix caches, no more than the "
            f"{without.cached_share:.1%} without x-session-id"
        )
    return problems


def drain_faults(moved: Moved) -> list[str]:
    """Return why moving on at the end of an engine is not shown; empty when it is."""
    problems = []
    if not moved.there:
        problems.append("no conversation was on the engine that ended")
    if moved.moved < moved.there:
        problems.append(f"{moved.there - moved.moved} conversations of the engine that ended found no other")
    if moved.strayed:
        problems.append(f"{moved.strayed} conversations left the engine that went on")
    return problems


def by_session(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Return the turns of each conversation, in order."""
    turns_of: dict[int, list[Turn]] = {}
    for turn in sorted(turns, key=lambda turn: (turn.session, turn.number)):
        turns_of.setdefault(turn.session, []).append(turn)
    return list(turns_of.values())


def _last(turns: Sequence[Turn], phase: str) -> str:
    """Return which engine answered the last turn of a phase."""
    return next((turn.backend for turn in reversed(turns) if turn.phase == phase), "")
