"""Derives the embedding space of every alias, and finds chains whose vectors could not be compared.

A chain is refused only where it is evidently one for embeddings. In a chain for chats a backend of another space does
no harm, because routing never asks it for embeddings (core/routing/spaces.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from spillway_router.config.load import ConfigProblem
from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.policy import Policy
from spillway_router.core.routing.rules import Conditions, Rule, Rules
from spillway_router.core.routing.spaces import serves_embeddings, space_of

_REMEDY = (
    "if both serve the same model, give them the same `embedding_space`; else take one out, or leave embeddings out of "
    "the `endpoints` of the one that serves none"
)


def alias_spaces(policy: Policy, rules: Rules) -> dict[str, str]:
    """Return the embedding space of each alias: of its chain, or of the chain by which a rule replaces it always."""
    spaces = {}
    for alias, chain in policy.aliases.items():
        replaced = next((rule.chain for rule in _chains_for(alias, rules) if _always_holds(rule)), chain)
        if space := space_of(policy.named(replaced)):
            spaces[alias] = space
    return spaces


def space_problems(policy: Policy, rules: Rules, explicit: Mapping[str, Sequence[str]]) -> Iterator[ConfigProblem]:
    """Yield a problem for each chain that mixes spaces. `explicit` are the aliases that the file has, with chains."""
    chains = [(f"aliases.{alias}.chain", chain) for alias, chain in explicit.items()]
    chains += [(f"the rule {rule.name!r}", rule.chain) for rule in rules.rules if _moves_embeddings(rule)]
    for where, chain in chains:
        pair = _mixed([policy.backends[name] for name in chain if name in policy.backends])
        if pair is not None:
            one, other = pair
            problem = f"mixes embeddings: {other.name}'s vectors lie in another space than {one.name}'s; {_REMEDY}"
            yield _problem(where, problem)
    for alias, space in policy.spaces.items():
        for rule in _chains_for(alias, rules):
            named = policy.named(rule.chain)
            if named and not any(serves_embeddings(one) and one.space == space for one in named):
                problem = (
                    f"sends embeddings for {alias!r} to another embedding space than {space!r}, which is never done; "
                    "leave `embeddings` out of `when.endpoint`, or use only the conditions alias and endpoint"
                )
                yield _problem(f"the rule {rule.name!r}", problem)


def space_warnings(policy: Policy, explicit: Mapping[str, Sequence[str]]) -> Iterator[ConfigProblem]:
    """Yield a warning for `auto` where the file has no chain for it and the backends would mix."""
    if "auto" in explicit:
        return
    pair = _mixed(policy.named(policy.aliases.get("auto", ())))
    if pair is not None:
        problem = (
            f"has embeddings in the space {policy.spaces['auto']!r} only, so not all of {pair[0].name} and "
            f"{pair[1].name} are asked for them; {_REMEDY}"
        )
        yield ConfigProblem("aliases.auto", 0, problem)


def _problem(where: str, problem: str) -> ConfigProblem:
    return ConfigProblem(where if where.startswith("aliases.") else "policy.rules", 0, _sentence(where, problem))


def _sentence(where: str, problem: str) -> str:
    return problem if where.startswith("aliases.") else f"{where} {problem}"


def _mixed(chain: Sequence[Backend]) -> tuple[Backend, Backend] | None:
    """Return two backends of a chain for embeddings that lie in different spaces; None if it has none."""
    embedders = [backend for backend in chain if backend.embeds]
    if not embedders:
        return None
    for other in embedders[1:]:
        if other.space != embedders[0].space:
            return embedders[0], other
    if any(_generates(backend) for backend in chain):
        return None  # it is a chain for chats
    unlike = (one for one in chain if serves_embeddings(one) and one.space != embedders[0].space)
    return next(((embedders[0], one) for one in unlike), None)


def _generates(backend: Backend) -> bool:
    """Return whether the backend is known to generate text: it bills an output, or serves no embeddings."""
    billed = backend.tariff is not None and backend.tariff.output_per_million > 0
    return not backend.embeds and (billed or not serves_embeddings(backend))


def _chains_for(alias: str, rules: Rules) -> list[Rule]:
    """Return the rules that may replace the chain of an alias for embeddings, in order."""
    return [
        rule for rule in rules.rules if _moves_embeddings(rule) and (alias in rule.when.models or not rule.when.models)
    ]


def _moves_embeddings(rule: Rule) -> bool:
    return bool(rule.chain) and "embeddings" in rule.when.endpoints


def _always_holds(rule: Rule) -> bool:
    """Return whether nothing but the alias and the endpoint decides on the rule, so that it never changes."""
    return replace(rule.when, models=frozenset(), endpoints=frozenset()) == Conditions()
