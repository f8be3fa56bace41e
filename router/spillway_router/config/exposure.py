"""Warnings about who can reach a router, and whether its callers need a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import Settings


def exposure_warnings(settings: Settings, proxies: Sequence[str]) -> Iterator[ConfigProblem]:
    """Yield a warning for everything that opens the router to others than programs on its machine.

    `proxies` names the reverse proxies and tunnels that run on the machine.
    """
    if not settings.loopback:
        if settings.tls is None:
            yield ConfigProblem(
                "listen",
                0,
                f"{settings.listen} can be reached from other machines: every request needs a key, and without TLS "
                "keys and prompts travel in clear. Set tls, or put a proxy with TLS in front and listen on 127.0.0.1",
            )
    elif not settings.keys.required:
        if proxies:
            yield ConfigProblem(
                "keys.required",
                0,
                f"{' and '.join(proxies)} runs on this machine. If it passes requests on to the router, set keys: "
                "{required: true}, because a proxy that adds no header looks like a program on this machine",
            )
        pages = [origin for origin in settings.cors.origins if "://" in origin]
        if pages:
            yield ConfigProblem(
                "cors.origins",
                0,
                f"pages of {', '.join(pages)} may use the router without a key; set keys: {{required: true}} if they "
                "should need one",
            )
