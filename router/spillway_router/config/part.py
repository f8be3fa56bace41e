"""What groups of settings have in common."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict


class Part(BaseModel):
    """A group of settings. It is frozen, and an unknown name in it is an error, as is a number that is none (`.nan`) or
    has no end (`.inf`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, not a name of a zone, not a file of one
        raise ValueError(f"time zone {name!r} is unknown; write one like Europe/Berlin, or UTC") from None
    return name


Timezone = Annotated[str, AfterValidator(_known)]
"""The name of a time zone that this machine knows."""
