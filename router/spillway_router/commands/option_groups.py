"""Options that several commands share as one value: a frozen dataclass whose fields are the options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

_R = TypeVar("_R")


def takes(parameter: str, group: type) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return a decorator that gives a command the options of `group`, and its function their value as `parameter`.

    The fields of the dataclass are annotated as parameters of commands are, and each has a default.
    """
    fields = dataclasses.fields(group)
    kinds = get_type_hints(group, include_extras=True)

    def decorate(function: Callable[..., _R]) -> Callable[..., _R]:
        own = get_type_hints(function, include_extras=True)
        parameters = [
            one.replace(annotation=own[name])
            for name, one in inspect.signature(function).parameters.items()
            if name != parameter
        ]
        options = [
            inspect.Parameter(
                field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=kinds[field.name]
            )
            for field in fields
        ]

        def command(**given: Any) -> _R:
            values = {field.name: given.pop(field.name) for field in fields}
            return function(**given, **{parameter: group(**values)})

        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
        positions = [one for one in parameters if one.default is inspect.Parameter.empty]
        others = [one for one in parameters if one.default is not inspect.Parameter.empty]
        command.__signature__ = inspect.Signature([*positions, *options, *others])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*positions, *options, *others)}
        return command

    return decorate
