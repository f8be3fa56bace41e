"""Ask each backend for its list of models, as `spillway check` does: is it reachable, and does it accept the key?

A backend that does not answer is a warning, since an engine may start later; a rejected key is an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx
import orjson

from spillway_router.config.assemble import BackendTarget
from spillway_router.http_client.resolving import ResolvingTransport

TIMEOUT_S = 3.0
"""The time limit for one backend, from the name lookup to the last byte; all backends are asked at once."""
_MOST_BYTES = 4 * 1024 * 1024
_SHOWN = 3

Verdict = Literal["reachable", "refused", "unauthorized", "unknown"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How a backend answered. `fix` says what to do, empty where all is well; `ms` is the time it took in
    milliseconds."""

    backend: str
    verdict: Verdict
    detail: str
    fix: str
    ms: float

    @property
    def sentence(self) -> str:
        """The verdict, its detail and the fix as one sentence for people."""
        text = f"{self.verdict} ({self.detail})"
        return f"{text}; {self.fix}" if self.fix else text


def ask_all(candidates: Iterable[BackendTarget], timeout_s: float = TIMEOUT_S) -> tuple[Reach, ...]:
    """Ask every backend and return the results in the order given. Takes at most `timeout_s`, however many there
    are."""

    async def ask_concurrently() -> list[Reach]:
        return await asyncio.gather(*(_ask(candidate, timeout_s) for candidate in candidates))

    return tuple(asyncio.run(ask_concurrently()))


async def _ask(candidate: BackendTarget, timeout_s: float) -> Reach:
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            status, models = await _get(candidate)
    except TimeoutError:
        reach = _reach(candidate, "unknown", f"no answer within {timeout_s:g} s", _ABSENT)
    except httpx.ConnectError as error:
        reach = _reach(candidate, "refused", str(error) or "no connection", _ABSENT)
    except httpx.HTTPError as error:
        reach = _reach(candidate, "unknown", str(error) or type(error).__name__, "check base_url")
    else:
        reach = _judge(candidate, status, models)
    return replace(reach, ms=round((time.monotonic() - started) * 1000, 1))


async def _get(candidate: BackendTarget) -> tuple[int, frozenset[str]]:
    """Return the status, and the names in the list of models where there is one."""
    target = candidate.target
    # As the router itself connects: without proxies of the environment or redirects, and with certificates checked.
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(uds=target.uds or None)
    if not target.uds:
        transport = ResolvingTransport(transport)
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


def _judge(candidate: BackendTarget, status: int, models: frozenset[str]) -> Reach:
    if status in (401, 403):
        variable = candidate.entry.key_variable
        where = f"set api_key, or export {variable}," if variable else "set api_key"
        fix = f"its key is missing, wrong or lacks the permission: {where} to a valid one"
        return _reach(candidate, "unauthorized", f"HTTP {status}", fix)
    if status >= 500:
        return _reach(candidate, "unknown", f"HTTP {status}", "it may be starting; look at its log")
    if 300 <= status < 400:
        return _reach(candidate, "unknown", f"HTTP {status}, a redirect", "write the final address as base_url")
    if status in (404, 405):
        return _reach(
            candidate, "unknown", f"HTTP {status} for its list of models", "check the path of base_url, usually /v1"
        )
    model = candidate.backend.model
    if candidate.backend.local and models and model not in models:
        served = ", ".join(sorted(models)[:_SHOWN])
        return _reach(
            candidate, "reachable", f"it serves {served}", f"it has no model {model!r}: set model to one it serves"
        )
    return _reach(candidate, "reachable", f"HTTP {status}", "")


def _reach(candidate: BackendTarget, verdict: Verdict, detail: str, fix: str) -> Reach:
    return Reach(backend=candidate.backend.name, verdict=verdict, detail=detail, fix=fix, ms=0.0)
