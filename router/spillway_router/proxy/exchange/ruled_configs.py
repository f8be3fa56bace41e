"""The configuration in force as the rules make it, made once for each set of rules that apply together."""

from __future__ import annotations

from dataclasses import replace

from spillway_router.core.routing.rules import ruled
from spillway_router.proxy.exchange.active_config import ActiveConfig

MOST_KEPT = 1_000
"""A router has a handful: one for each set of rules that ever applied together."""


class RuledConfigs:
    """What the rules made of one configuration. It forgets all of it when it gets another one."""

    def __init__(self) -> None:
        self._of: ActiveConfig | None = None
        self._made: dict[tuple[int, ...], ActiveConfig] = {}

    def under(self, config: ActiveConfig, places: tuple[int, ...]) -> ActiveConfig:
        """Return the configuration with its policy as the rules at these places make it."""
        if config is not self._of or len(self._made) >= MOST_KEPT:
            self._of, self._made = config, {}
        made = self._made.get(places)
        if made is None:
            made = self._made[places] = replace(config, policy=ruled(config.policy, config.rules, places))
        return made
