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
        self._config: ActiveConfig | None = None
        self._ruled: dict[tuple[int, ...], ActiveConfig] = {}

    def under(self, config: ActiveConfig, places: tuple[int, ...]) -> ActiveConfig:
        """Return the configuration with its policy as the rules at these places make it."""
        if config is not self._config or len(self._ruled) >= MOST_KEPT:
            self._config, self._ruled = config, {}
        ruled_config = self._ruled.get(places)
        if ruled_config is None:
            ruled_config = self._ruled[places] = replace(config, policy=ruled(config.policy, config.rules, places))
        return ruled_config
