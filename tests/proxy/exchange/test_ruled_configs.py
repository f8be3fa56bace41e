"""The configuration in force, as the rules of its policy make it."""

from __future__ import annotations

from dataclasses import replace

from tests.proxy.exchange.scene import scene

from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.core.routing.rules import Conditions, Rule, Rules
from spillway_router.proxy.exchange.ruled_configs import MOST_KEPT, RuledConfigs
from spillway_router.testing.harness import cloud, local, settings

RULES = Rules((Rule("nothing leaves", Conditions(), forbid=frozenset({"cloud"})),))
URL = "http://127.0.0.1:1"


async def test_what_the_rules_make_of_a_configuration_is_kept_for_that_configuration_only() -> None:
    ruled_configs = RuledConfigs()
    async with scene(settings(local(URL), cloud(URL))) as world:
        config = replace(world.services.config(), rules=RULES)
        under = ruled_configs.under(config, (0,))
        assert under.policy.ruling.rules == ("nothing leaves",)
        assert ruled_configs.under(config, (0,)) is under
        stricter = replace(config, policy=replace(config.policy, confidence=ConfidenceRule(0.95)))
        assert ruled_configs.under(stricter, (0,)).policy.confidence.threshold == 0.95
        again = ruled_configs.under(config, (0,))
        assert again == under
        for length in range(2, MOST_KEPT + 2):
            ruled_configs.under(config, (0,) * length)
        assert ruled_configs.under(config, (0,)) is not again
