"""A policy with a rule of every kind and any number of backends, for what decisions cost.

The rules are read and their conditions looked at for every request. One of them applies to the request of the bench:
it puts the backends in the order that they have anyway, so that the answer is the same as without rules.
"""

from __future__ import annotations

from typing import Any

RULES: tuple[dict[str, Any], ...] = (
    {"name": "tests of the owner", "when": {"key": ["owner"], "endpoint": "chat"}, "forbid": "local"},
    {"name": "hard questions", "when": {"tier": ["paid"], "complexity": {"at_least": 5}}, "prefer": ["cloud1"]},
    {"name": "code", "when": {"task": ["code"], "language": ["en", "de"]}, "prefer": ["cloud1", "local"]},
    {"name": "long prompts", "when": {"prompt_tokens": {"at_least": 100_000}}, "chain": ["cloud1"]},
    {"name": "pictures", "when": {"needs": ["vision"]}, "chain": ["cloud1"]},
    {"name": "private", "when": {"private": True}, "escalate": "never"},
    {"name": "nobody saves", "when": {"budget_left_below": 0.01}, "forbid": "cloud"},
    {"name": "a full engine", "when": {"waiting": {"at_least": 500}}, "prefer": ["cloud1"]},
    {
        "name": "never on monday",
        "when": {"hours": ["00:00-00:01"], "days": ["mon"], "alias": "demo"},
        "forbid": "cloud",
    },
    {"name": "simple questions stay", "when": {"complexity": {"at_most": 9}}, "prefer": ["local"]},
)


def every_rule(backends: int, base_url: str) -> dict[str, Any]:
    """Return the settings of a router with one local backend, `backends` - 1 clouds in one chain, and every rule."""
    price = {"input_per_million": "0.15", "output_per_million": "0.60"}
    cloud = {"provider": "generic", "base_url": base_url, "api_key": "stub", "model": "demo", "price": price}
    local = {"name": "local", "provider": "vllm", "local": True, "base_url": base_url, "model": "demo"}
    clouds = [{"name": f"cloud{number}", **cloud} for number in range(1, backends)]
    chain = ["local", *(str(one["name"]) for one in clouds)]
    return {
        "backends": [local, *clouds],
        "aliases": {"auto": {"chain": chain}, "demo": {"chain": chain}},
        "budgets": [{"scope": "all", "period": "day", "limit_usd": "1000000"}],
        "policy": {"rules": [dict(rule) for rule in RULES]},
    }
