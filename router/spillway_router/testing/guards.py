"""Switches one of the two guards of privacy off, so that a test or a measurement can show that the other one holds.

The routing guard is the filter that removes clouds from the candidates of a private request; the transport guard is the
pool that refuses to send one. No setting of a router does this.
"""

from __future__ import annotations

from dataclasses import replace

from spillway_router.runtime.router import Runtime


def without_routing_guard(runtime: Runtime) -> None:
    """Let routing take every backend for local, until the next reload."""
    config = runtime.services.config()
    backends = {name: replace(backend, local=True) for name, backend in config.policy.backends.items()}
    runtime._active_config = replace(config, policy=replace(config.policy, backends=backends))


def without_transport_guard(runtime: Runtime) -> None:
    """Let every connection pool take its target for local, until the next reload."""
    for route in runtime.services.config().backend_routes.values():
        route.pool.local = True
