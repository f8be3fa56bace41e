"""Asks an engine what it can do: its context length from `/v1/models`, more from a page of its own where it has one
(own_pages.py), the rest by probing requests of one token.

Engines refuse what they were not started for (pictures without a multimodal model, tools without a parser, more
log-probabilities than allowed), and no page of theirs says so beforehand. One request that needs everything settles
the matter where the engine accepts it. Where it does not, one request per capability finds what is missing: four in
all, which cost an engine at most four tokens. Only an error that the table of errors knows, or that names the field,
counts as a missing capability. Anything else leaves it to the configuration.

The reader runs when the engine comes up, at the start and after every outage: another engine may listen then. An
engine that loads its model with the first request is asked again and again, which costs it a page.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from spillway_router.core.routing.model import Capability, Outcome
from spillway_router.http_client.connection import TooLargeError, TransportError
from spillway_router.http_client.types import Reply
from spillway_router.signals.engine_client import EngineClient
from spillway_router.signals.engines import EngineMetrics
from spillway_router.signals.liveness import Condition
from spillway_router.signals.own_pages import EngineAbilities, positive

PROBED: Final[tuple[Capability, ...]] = ("vision", "tools", "logprobs")
_MISSING_FAULTS = frozenset({"capability", "tool_parser", "parameter"})
_MOST_BYTES = 4 * 1024 * 1024
_PICTURE_PIXELS = 64
"""Width and height of the probing picture. Some processors of pictures refuse smaller ones."""

log = logging.getLogger("spillway.signals")


@dataclass(frozen=True, slots=True)
class AbilitySettings:
    """Times in seconds. A reading that fails is repeated `retries` times, after pauses that double."""

    timeout_s: float = 30.0
    """For each request: under load, one token may take long."""
    retry_s: float = 15.0
    retries: int = 4
    reread_s: float = 2.0
    """Between two readings of an engine whose own page changes."""


@dataclass(frozen=True, slots=True)
class AskedEngine:
    """The engine to ask: its kind, the model that is meant, and what an answer of its kind means."""

    metrics: EngineMetrics
    model: str
    outcome: Callable[[Reply], Outcome]


OnAbilities = Callable[[EngineAbilities], None]
"""Receives every reading, and an empty one when the engine comes up. It must not raise."""


class NotToldError(Exception):
    """The engine gave no usable answer now; the message says why."""


class AbilityReader:
    """Reads one engine's abilities whenever it comes up. `client` belongs to the caller."""

    __slots__ = ("_client", "_condition", "_engine", "_on_abilities", "_settings", "_sleep", "_wanted")

    def __init__(
        self,
        client: EngineClient,
        engine: AskedEngine,
        on_abilities: OnAbilities,
        settings: AbilitySettings | None = None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._engine = engine
        self._on_abilities = on_abilities
        self._settings = settings or AbilitySettings()
        self._sleep = sleep
        self._condition: Condition = "starting"
        self._wanted = asyncio.Event()

    def on_condition(self, condition: Condition) -> None:
        """Take the prober's verdict; an engine that comes up is asked."""
        if condition == "up" and self._condition != "up":
            self._wanted.set()
        self._condition = condition

    async def run(self) -> None:
        """Ask the engine each time it comes up, until cancelled."""
        last: EngineAbilities | None = None
        while True:
            if await self._is_wanted():
                self._wanted.clear()
                last = EngineAbilities()
                self._on_abilities(last)
                await self._read_with_retries()
            elif self._condition == "up":
                last = await self._read_again(last)

    async def _is_wanted(self) -> bool:
        """Wait until the engine comes up, or until its page is read again, and return which of both it is."""
        if not self._engine.metrics.own_page_changes:
            return await self._wanted.wait()
        try:
            async with asyncio.timeout(self._settings.reread_s):
                return await self._wanted.wait()
        except TimeoutError:
            return self._wanted.is_set()

    async def _read_again(self, last: EngineAbilities | None) -> EngineAbilities | None:
        """Read the engine's own page once more, and report what has changed. A reading that fails, or says nothing,
        changes nothing."""
        try:
            abilities = await self._own()
        except NotToldError:
            return last
        if abilities not in (last, EngineAbilities()):
            self._on_abilities(abilities)
            return abilities
        return last

    async def _read_with_retries(self) -> None:
        pause_s = self._settings.retry_s
        for attempt in range(self._settings.retries + 1):
            if attempt:
                await self._sleep(pause_s)
                pause_s *= 2
            if self._wanted.is_set():
                return
            try:
                self._on_abilities(await self.read())
            except NotToldError as reason:
                log.info("engine %s did not say what it can do: %s", self._client.place, reason)
            else:
                return

    async def read(self) -> EngineAbilities:
        """Ask once. Raises NotToldError."""
        abilities = await self._from_pages()
        if not self._engine.metrics.probe or await self._accepts(PROBED):
            return abilities
        lacks = {capability for capability in PROBED if await self._accepts((capability,)) is False}
        return replace(abilities, lacks=abilities.lacks | lacks)

    async def _from_pages(self) -> EngineAbilities:
        """Return what the engine's pages say."""
        if not self._engine.metrics.reads_models:
            return await self._own()
        length = _model_length(_object(await self._request("/v1/models")), self._engine.model)
        abilities = await self._own()
        return replace(abilities, context_tokens=length or abilities.context_tokens)

    async def _own(self) -> EngineAbilities:
        """Return what the engine's own page says."""
        metrics = self._engine.metrics
        if metrics.own_page is None:
            return EngineAbilities()
        return metrics.own_page(_object(await self._request(metrics.own_path)), self._engine.model)

    async def _accepts(self, capabilities: tuple[Capability, ...]) -> bool | None:
        """Return whether the engine answers a request that needs these capabilities; None if it leaves that open."""
        reply = await self._request("/v1/chat/completions", probing_body(self._engine.model, capabilities))
        if reply.status == HTTPStatus.OK:
            return "logprobs" not in capabilities or _has_logprobs(_object(reply))
        outcome = self._engine.outcome(reply)
        if outcome.kind in ("overloaded", "rate_limited", "failed", "timeout"):
            raise NotToldError(f"HTTP {reply.status}")
        named = capabilities == ("logprobs",) and "logprobs" in outcome.said
        return False if outcome.fault in _MISSING_FAULTS or named else None

    async def _request(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                if body is None:
                    return await self._client.get(path, _MOST_BYTES)
                return await self._client.post(path, body, "abilities", _MOST_BYTES)
        except TooLargeError:
            raise NotToldError(f"the answer is larger than {_MOST_BYTES} bytes") from None
        except TimeoutError:
            raise NotToldError(f"no answer within {self._settings.timeout_s:g} s") from None
        except TransportError as error:
            raise NotToldError(str(error) or type(error).__name__) from None


def probing_body(model: str, capabilities: tuple[Capability, ...]) -> dict[str, Any]:
    """Return a chat request for one token that needs these capabilities."""
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
    content: list[dict[str, Any]] = [{"type": "text", "text": "a"}]
    if "vision" in capabilities:
        content.append({"type": "image_url", "image_url": {"url": _picture()}})
    body["messages"] = [{"role": "user", "content": content if len(content) > 1 else "a"}]
    if "tools" in capabilities:
        parameters = {"type": "object", "properties": {}}
        body["tools"] = [{"type": "function", "function": {"name": "noop", "parameters": parameters}}]
        body["tool_choice"] = "auto"
    if "logprobs" in capabilities:
        body |= {"logprobs": True, "top_logprobs": 2}
    return body


def _picture() -> str:
    """Return a grey PNG as a data URL."""
    size = _PICTURE_PIXELS
    rows = zlib.compress((b"\0" + b"\x80" * size) * size)
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    chunks = b"".join(_chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _object(reply: Reply) -> Mapping[str, Any]:
    """Return the JSON object of an answer; an empty one if it holds something else."""
    try:
        parsed = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _model_length(models: Mapping[str, Any], model: str) -> int | None:
    """Return the context length on the model's card, or on any other: an adapter's card may have none of its own."""
    cards = models.get("data")
    cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    cards.sort(key=lambda card: card.get("id") != model)
    return next((length for card in cards if (length := _card_length(card)) is not None), None)


def _card_length(card: Mapping[str, Any]) -> int | None:
    meta = card.get("meta")
    return positive(card.get("max_model_len")) or positive(meta.get("n_ctx") if isinstance(meta, dict) else None)


def _has_logprobs(answer: Mapping[str, Any]) -> bool:
    choices = answer.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("logprobs") for c in choices)
