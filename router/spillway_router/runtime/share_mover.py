"""Moves the shares of experiments with a bandit, once per interval and off the event loop.

What is in force lies in the ledger, where the first router to compute an interval stores it and the others take it from
there. So all routers on one ledger place units alike, but for up to a minute after the beginning of an interval, and a
restart changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.core.comparison.moving_shares import ShareStep, next_shares
from spillway_router.core.comparison.thompson import ArmWorth
from spillway_router.core.routing.moving_arms import (
    Bandit,
    Stretch,
    moved_stretches,
    shares_of,
    stretches_of,
    with_stretches,
)
from spillway_router.core.routing.rules import Rules
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.tables.acts import Change
from spillway_router.ledger.tables.experiments import ShareMove

log = logging.getLogger("spillway")

LONGEST_PAUSE_S = 60.0
"""The wall clock is read at least this often, because it may be set."""
WORK_S = 60.0
"""How long one look at the ledger may take."""
DAY_S = 86_400


class ShareMover:
    """The shares in force of the experiments with a bandit.

    `wall` is epoch seconds. `apply` is called when shares have changed; `placed` then gives the rules with them. Call
    `use` with each configuration, `start` inside the event loop and `stop` when done.
    """

    def __init__(self, ledger: Ledger, wall: Callable[[], float], apply: Callable[[], None]) -> None:
        self._ledger = ledger
        self._wall = wall
        self._apply = apply
        self._bandits: tuple[Bandit, ...] = ()
        self._configured: dict[str, tuple[Stretch, ...]] = {}
        self._in_force: dict[tuple[str, str], ShareMove] = {}
        self._looked_at: dict[tuple[str, str], int] = {}
        self.moves: dict[str, int] = {}
        """How often this router has seen the shares of an experiment move, by its name."""
        self._periodic = Periodic("experiment shares", Rhythm(self._pause_s), self._tick)

    def start(self) -> None:
        """Start to look; harmless when repeated."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop to look."""
        await self._periodic.stop()

    def use(self, bandits: Sequence[Bandit], rules: Rules) -> None:
        """Take the bandits of a configuration and their shares in force. `rules` are those of the configuration.

        While the ledger is away, what is known counts, and without that the shares of the configuration.
        """
        self._bandits = tuple(bandits)
        self._configured = {one.experiment: stretches_of(rules, one.experiment) for one in bandits}
        self.moves = {one.experiment: self.moves.get(one.experiment, 0) for one in bandits}
        for bandit in self._bandits:
            try:
                move = self._ledger.experiments.latest_move(bandit.experiment, bandit.setup)
            except LedgerError as error:
                log.warning("the shares of the experiment %s are not known now: %s", bandit.experiment, error)
                return
            if move is not None:
                self._in_force[bandit.experiment, bandit.setup] = move

    def placed(self, rules: Rules) -> Rules:
        """Return the rules of the configuration with the shares in force."""
        for bandit in self._bandits:
            move = self._in_force.get((bandit.experiment, bandit.setup))
            if move is not None:
                rules = with_stretches(rules, bandit.experiment, move.stretches)
        return rules

    async def check(self) -> None:
        """Move the shares of every experiment whose interval has no move yet, if they should move.

        Raises LedgerError; the shares in force stay.
        """
        for bandit in self._bandits:
            await self._check(bandit)

    async def _tick(self) -> None:
        for bandit in self._bandits:
            interval = bandit.rule.interval(self._wall())
            if self._looked_at.get((bandit.experiment, bandit.setup)) == interval:
                continue
            try:
                await self._check(bandit)
            except LedgerError as error:
                log.warning("the shares of the experiment %s stay as they are: %s", bandit.experiment, error)
            else:
                self._looked_at[bandit.experiment, bandit.setup] = interval

    async def _check(self, bandit: Bandit) -> None:
        key = (bandit.experiment, bandit.setup)
        configured = self._configured[bandit.experiment]
        move = await LEDGER_CALLS.run(_look, self._ledger, bandit, configured, self._wall(), limit_s=WORK_S)
        if move is None or move == self._in_force.get(key) or bandit not in self._bandits:
            return
        self._in_force[key] = move
        self.moves[bandit.experiment] = self.moves.get(bandit.experiment, 0) + 1
        shares = ", ".join(f"{arm} {share:.1%}" for arm, share in shares_of(move.stretches).items())
        log.info("experiment %s: shares moved to %s (%s)", bandit.experiment, shares, move.reasons)
        self._apply()

    def _pause_s(self) -> float:
        now_s = self._wall()
        left = [one.rule.every_s - now_s % one.rule.every_s for one in self._bandits]
        return min([LONGEST_PAUSE_S, *left])


def _look(ledger: Ledger, bandit: Bandit, configured: tuple[Stretch, ...], wall_s: float) -> ShareMove | None:
    """Return the move in force: that of the interval in which a moment lies, made now if there is none and shares
    should move, else the latest one. None without any. Raises LedgerError."""
    from spillway_router.ledger.reports.bandit import arm_worths  # most routers have no bandit

    table, rule = ledger.experiments, bandit.rule
    latest = table.latest_move(bandit.experiment, bandit.setup)
    interval = rule.interval(wall_s)
    at_ms = interval * rule.every_s * 1000
    if latest is not None and latest.at_ms >= at_ms:
        return latest
    now_ms = int(wall_s * 1000)
    start_ms = now_ms - rule.days * DAY_S * 1000
    worths = arm_worths(table.arms(start_ms, now_ms), rule.worth).get(bandit.experiment, {})
    arms = {name: worths.get(name, UNKNOWN) for name in bandit.contenders}
    before = configured if latest is None else latest.stretches
    step = next_shares(bandit.experiment, rule, shares_of(before), arms, interval)
    if not step.moves:
        log.debug("experiment %s: no move: %s", bandit.experiment, ", ".join(step.reasons))
        return latest
    reasons = move_reasons(step, arms, bandit, interval)
    stretches = moved_stretches(before, step.after)
    move = ShareMove(
        experiment=bandit.experiment, setup=bandit.setup, at_ms=at_ms, stretches=stretches, reasons=reasons
    )
    if not table.keep_move(move):  # another router was quicker
        return table.latest_move(bandit.experiment, bandit.setup)
    ledger.acts.record(Change("experiment.move", bandit.experiment, reasons))
    return move


UNKNOWN = ArmWorth()
"""What is known of an arm without a rating."""


def move_reasons(step: ShareStep, arms: Mapping[str, ArmWorth], bandit: Bandit, interval: int) -> dict[str, Any]:
    """Return why shares moved, as JSON values: shares between 0 and 1, and of each arm the units with a value, the mean
    value and the mean cost of a request in nano-dollars."""
    return {
        "worth": bandit.rule.worth,
        "interval": interval,
        "because": list(step.reasons),
        "before": _rounded(step.before),
        "drawn": _rounded(step.drawn),
        "after": _rounded(step.after),
        "arms": {
            name: {"units": arm.value.units, "value": _or_none(arm.value.mean, 4), "cost_nano": _or_none(arm.cost.mean)}
            for name, arm in sorted(arms.items())
        },
    }


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 6) for name, share in shares.items()}


def _or_none(value: float | None, digits: int = 0) -> float | None:
    return None if value is None else round(value, digits)
