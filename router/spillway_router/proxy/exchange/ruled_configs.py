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
        self._shadows: dict[tuple[int, ...], ActiveConfig] = {}

    def under(self, config: ActiveConfig, places: tuple[int, ...], *, in_shadow: bool = False) -> ActiveConfig:
        """Return the configuration with its policy as the rules at these places make it, or make it in their shadow."""
        if config is not self._config or len(self._ruled) >= MOST_KEPT:
            self._config, self._ruled, self._shadows = config, {}, {}
        kept = self._shadows if in_shadow else self._ruled
        ruled_config = kept.get(places)
        if ruled_config is None:
            policy = ruled(config.policy, config.rules, places, in_shadow=in_shadow)
            ruled_config = kept[places] = replace(config, policy=policy)
        return ruled_config
