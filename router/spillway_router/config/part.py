"""What groups of settings have in common."""

from __future__ import annotations

from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError


class Part(BaseModel):
    """A group of settings. It is frozen, and an unknown name in it is an error, as is a number that is none (`.nan`),
    has no end (`.inf`) or is a yes or no, which would count as 1 or 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        kind = _number_type(cls.model_fields[info.field_name or ""].annotation)
        if kind is not None and _has_switch(value):
            raise PydanticKnownError("int_type" if kind is int else "float_type")
        return value


def _number_type(annotation: Any) -> type | None:
    """Return the type of number that a setting may be or hold; None if it may be a yes or no, or no such number."""
    kinds = tuple(_kinds(annotation))
    return None if bool in kinds else next((kind for kind in kinds if kind in (int, float)), None)


def _kinds(annotation: Any) -> list[Any]:
    arguments = get_args(annotation)
    return [kind for one in arguments for kind in _kinds(one)] if arguments else [annotation]


def _has_switch(value: object) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
    return any(isinstance(one, bool) for one in values)


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, not a name of a zone, not a file of one
        raise ValueError(f"time zone {name!r} is unknown; write one like Europe/Berlin, or UTC") from None
    return name


Timezone = Annotated[str, AfterValidator(_known)]
"""The name of a time zone that this machine knows."""
