"""What a key may use, on every way by which a request can reach a backend.

models      a name that the key lists may be asked for. An alias brings all that the policy makes of it, escalation
            too; the name of a model brings this model, by whatever name it is reached.
backends    only these serve the key (the filter `access`)
may_route   without it, the policy alone chooses between the GPU and the clouds: a request can neither name a cloud
            model that its key does not list, nor exclude or reorder backends beside an engine, nor bring a stricter
            latency or confidence than the configured one
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spillway_router.core.routing.model import Backend, Caller, Preferences, RequestFacts
from spillway_router.core.routing.ordering import split_suffix


def permitted(
    caller: Caller, name: str, named: Sequence[Backend], *, is_alias: bool, local: bool
) -> list[Backend] | str:
    """Return those of the backends that a requested name stands for which the key may use by it, or why it may not.

    `local`: the policy has a local backend, between which and the clouds there is a choice.
    """
    models = _models(caller)
    if name in models:
        return list(named)
    listed = [backend for backend in named if not models.isdisjoint(own_names(backend))]
    if models:
        if not listed and named:
            return f"This key may not use the model '{name}'. It may use: {', '.join(sorted(models))}."
        named = listed
    elif not caller.may_route and local and not is_alias and not all(backend.local for backend in named):
        return (
            f"This key may not choose a cloud, as '{name}' does. Ask for an alias; or permit it with "
            f"`spillway keys set ID --may-route` or `--models {name}`."
        )
    return list(named)


def may_have_instead(facts: RequestFacts, backend: Backend, aliases: Iterable[str]) -> bool:
    """Return whether a backend that the request did not name may answer it, as an escalation or a better answer."""
    models = _models(facts.caller)
    if not models or not models.isdisjoint(own_names(backend)):
        return True
    names = (facts.model, *facts.preferences.models)
    asked = {*names, *(split_suffix(name)[0] for name in names)}
    return not models.isdisjoint(asked.intersection(aliases))


def chooses_place(preferences: Preferences) -> str:
    """Return the field of a request that excludes or reorders backends, or ""."""
    for field, value in (
        ("order", preferences.order),
        ("only", preferences.only),
        ("ignore", preferences.ignore),
        ("require_parameters", preferences.needed_fields),
    ):
        if value:
            return f"provider.{field}"
    return preferences.unjudged[0] if preferences.unjudged else ""


def own_names(backend: Backend) -> tuple[str, str, str]:
    """Return the names by which requests can ask for a backend itself."""
    return backend.name, backend.model, f"{backend.name}/{backend.model}"


def _models(caller: Caller) -> frozenset[str]:
    return frozenset() if caller.rules is None else caller.rules.models
