"""Where models are looked up on this machine: the cache of downloads, the hub of the environment, what is given."""

from __future__ import annotations

from pathlib import Path

from spillway_server import environment
from spillway_server.planning.hub import Hub
from spillway_server.planning.models import Sources


def of_environment(description: Path | None = None, force: bool = False, token: str | None = None) -> Sources:
    """Return the sources; `token` None takes the user's own for the hub."""
    endpoint = environment.hub_endpoint()
    hub = Hub(endpoint, environment.hub_token() if token is None else token) if endpoint else None
    return Sources(environment.hub_cache(), hub, description, force)
