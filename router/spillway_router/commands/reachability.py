"""Asks each backend for its list of models, with its key, as `spillway check` does: is it there, does it take the key?

Who does not answer is a warning, as an engine may start later; a refused key is a mistake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson

from spillway_router.config.assemble import BackendTarget

TIMEOUT_S = 3.0
"""For one backend, from the name's look-up to the last byte; all are asked at once."""
_MOST_BYTES = 4 * 1024 * 1024
_SHOWN = 3

Verdict = Literal["reachable", "refused", "unauthorized", "unknown"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How asking a backend went. `fix`: what to do about it, empty where all is well; `ms` milliseconds it took."""

    backend: str
    verdict: Verdict
    detail: str
    fix: str
    ms: float

    @property
    def sentence(self) -> str:
        """For people."""
        told = f"{self.verdict} ({self.detail})"
        return f"{told}; {self.fix}" if self.fix else told


def ask_all(places: Iterable[BackendTarget], timeout_s: float = TIMEOUT_S) -> tuple[Reach, ...]:
    """Every backend, in the order given. Takes `timeout_s` at most, however many there are."""

    async def main() -> list[Reach]:
        return await asyncio.gather(*(_ask(place, timeout_s) for place in places))

    return tuple(asyncio.run(main()))


async def _ask(place: BackendTarget, timeout_s: float) -> Reach:
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            status, models = await _get(place)
    except TimeoutError:
        found = _told(place, "unknown", f"no answer within {timeout_s:g} s", _ABSENT)
    except httpx.ConnectError as error:
        found = _told(place, "refused", str(error) or "no connection", _ABSENT)
    except httpx.HTTPError as error:
        found = _told(place, "unknown", str(error) or type(error).__name__, "check base_url")
    else:
        found = _judged(place, status, models)
    ms = (time.monotonic() - began) * 1000
    return Reach(found.backend, found.verdict, found.detail, found.fix, round(ms, 1))


async def _get(place: BackendTarget) -> tuple[int, frozenset[str]]:
    """Status, and the names in the list of models where there is one."""
    target = place.target
    # As the router itself goes: no proxies of the environment, no redirects, certificates checked.
    transport = httpx.AsyncHTTPTransport(uds=target.uds or None)
    url = f"{target.scheme}://{target.authority.decode()}{target.prefix}/models"
    async with (
        httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client,  # noqa: S113 - bounded above
        client.stream("GET", url, headers=list(target.headers)) as response,
    ):
        body = b""
        if response.status_code == httpx.codes.OK:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    break
        return response.status_code, _names(body)


def _names(body: bytes) -> frozenset[str]:
    try:
        listed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return frozenset()
    rows = listed.get("data") if isinstance(listed, Mapping) else None
    return frozenset(str(row["id"]) for row in rows or () if isinstance(row, Mapping) and "id" in row)


_ABSENT = "start it or check base_url"


def _judged(place: BackendTarget, status: int, models: frozenset[str]) -> Reach:
    if status in (401, 403):
        variable = place.entry.key_variable
        where = f"set api_key, or export {variable}," if variable else "set api_key"
        fix = f"its key is missing, wrong or may not do this: {where} to a valid one"
        return _told(place, "unauthorized", f"HTTP {status}", fix)
    if status >= 500:
        return _told(place, "unknown", f"HTTP {status}", "it may be starting; look at its log")
    if 300 <= status < 400:
        return _told(place, "unknown", f"HTTP {status}, a redirect", "write the final address as base_url")
    if status in (404, 405):
        return _told(
            place, "unknown", f"HTTP {status} for its list of models", "check the path of base_url, mostly /v1"
        )
    model = place.backend.model
    if place.backend.local and models and model not in models:
        there = ", ".join(sorted(models)[:_SHOWN])
        return _told(place, "reachable", f"it serves {there}", f"it has no model {model!r}: set model to one it serves")
    return _told(place, "reachable", f"HTTP {status}", "")


def _told(place: BackendTarget, verdict: Verdict, detail: str, fix: str) -> Reach:
    return Reach(place.backend.name, verdict, detail, fix, 0.0)
