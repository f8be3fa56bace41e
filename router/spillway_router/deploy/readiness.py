"""Asks a rented machine whether it serves, until it does or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from spillway_router.deploy.order import DeployError

EVERY_S = 5.0
ASK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a machine is ready, at which URL, how many seconds that took, and what it said last."""

    ready: bool
    url: str
    waited_s: float
    last: str


def await_ready(
    locate: Callable[[], str],
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Readiness:
    """Ask the machine for /ready every 5 s. `locate` returns its root URL, "" while it has none."""
    began_s = clock()
    while True:
        url, last = "", "it has no address yet"
        try:
            url = locate()
            if url:
                last = _ask(url)
        except DeployError as error:
            last = str(error)
        waited_s = clock() - began_s
        if not last or waited_s + EVERY_S > within_s:
            return Readiness(not last, url, waited_s, last)
        sleep(EVERY_S)


def _ask(url: str) -> str:
    """Return "" if the machine is ready, else what is in the way."""
    try:
        reply = httpx.get(f"{url}/ready", timeout=ASK_TIMEOUT_S, follow_redirects=False)
    except httpx.HTTPError as error:
        return f"{url} does not answer ({type(error).__name__})"
    if reply.status_code == httpx.codes.OK:
        return ""
    return f"{url}/ready answers {reply.status_code}"
