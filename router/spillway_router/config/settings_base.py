"""What all parts of the settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Some settings: frozen, and an unknown name among them is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)
