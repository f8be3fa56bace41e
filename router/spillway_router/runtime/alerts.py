"""Alerts for people, to a webhook besides the log: budgets (each threshold once per period, and as a metric), the
confidence threshold when audits speak against it, calibrations that are not used.

Telling never waits: the webhook's messages go through a bounded queue to one worker, which sends them in order and
tries again with growing, jittered waits while the receiver is away. What can't be delivered ends as a logged loss,
never as a delayed request. The receiver's address comes from the configuration only.

Signature, if a secret is set (the scheme that payment providers use, so that receivers have code for it):

    x-spillway-signature: t=<epoch seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>" with the secret>

`x-spillway-delivery` is the same for every attempt at one message: a receiver that sees it twice may drop the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import httpx

from spillway_router.core.money.budget import BudgetAlert
from spillway_router.core.money.tariff import usd

log = logging.getLogger("spillway.alerts")

DeliveryResult = Literal["sent", "retried", "lost"]

_RETRIED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts are posted. The URL may carry a secret in its path, so neither is ever logged."""

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """What may be logged of it."""
        return httpx.URL(self.url).host


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """Bounds of delivery. Waits double from the first to the longest, each shortened by up to half at random."""

    attempts: int = 8
    timeout_s: float = 5.0
    """For one attempt, from connecting to the answer's head."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    queue: int = 256
    """Messages waiting; a further one is lost, and logged as such."""


@dataclass(frozen=True, slots=True)
class AlertHooks:
    """What is told besides the log: every budget alert, and how each webhook delivery went."""

    on_alert: Callable[[BudgetAlert], None]
    on_delivery: Callable[[DeliveryResult], None]


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    body: bytes
    about: str


class Alerts:
    """Tells alerts. `start` inside the event loop, `close` when done; `told` in between and before.

    `wall` is epoch seconds, `jitter` gives numbers in [0, 1).
    """

    def __init__(
        self,
        hooks: AlertHooks,
        webhook: Webhook | None = None,
        rules: DeliveryRules | None = None,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._hooks = hooks
        self._webhook = webhook
        self._rules = rules or DeliveryRules()
        self._wall = wall
        self._jitter = jitter
        self._told: dict[tuple[str, str, str], int] = {}
        self._unused: tuple[str, ...] = ()
        self._queue: asyncio.Queue[_Message] = asyncio.Queue(self._rules.queue)
        self._worker: asyncio.Task[None] | None = None

    def configure(self, webhook: Webhook | None) -> None:
        """A new receiver after a reload; messages that wait go to it too."""
        self._webhook = webhook

    def told(self, alert: BudgetAlert) -> None:
        """Tell one alert; the same threshold of the same period is told once."""
        key = (alert.scope, alert.period, str(alert.at))
        if self._told.get(key) == alert.period_start:
            return
        self._told[key] = alert.period_start
        log.warning("%s", sentence(alert))
        self._hooks.on_alert(alert)
        self._post(message(alert))

    def certificate_revoked(self, kind: str, losses: int, audits: int) -> None:
        """Audits speak against the confidence threshold of a kind of answers (chat, document): told once by whoever saw
        it."""
        text = (
            f"{losses} of the last {audits} audited local answers ({kind}) were wrong, which the threshold rules out. "
            "None is kept until it changes: label new answers, run `spillway calibrate`, and load the new calibration."
        )
        log.warning("%s", text)
        values = {"kind": kind, "wrong": losses, "audits": audits}
        self._post(_message("certificate_revoked", text, values, f"certificate|{kind}|{self._wall()}"))

    def calibration_unused(self, problems: Sequence[str]) -> None:
        """Why the configured calibration is not used, as the log has it too: each is told once, and again when it was
        mended in between."""
        before, self._unused = self._unused, tuple(problems)
        for problem in problems:
            if problem not in before:
                text = f"confidence.calibration {problem}."
                self._post(_message("calibration_unused", text, {}, f"calibration|{problem}|{self._wall()}"))

    def _post(self, waiting: _Message) -> None:
        if self._webhook is None:
            return
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            self._lost(waiting, f"{self._rules.queue} messages wait already")

    def start(self) -> None:
        """Begin to deliver."""
        self._worker = asyncio.get_running_loop().create_task(self._deliver_forever(), name="alerts")

    async def close(self, flush_s: float) -> None:
        """Deliver what waits, for at most `flush_s` seconds; the rest is logged as lost."""
        if self._worker is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await self._queue.join()
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._worker = None
        while not self._queue.empty():
            self._lost(self._queue.get_nowait(), "the router stopped")

    async def _deliver_forever(self) -> None:
        waiting = await self._queue.get()  # before the client: it reads all certificates, 0.8 MB
        # Proxies of the environment are left out: the receiver is the one in the configuration.
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client:  # noqa: S113
            while True:
                try:
                    await self._deliver(client, waiting)
                finally:
                    self._queue.task_done()
                waiting = await self._queue.get()

    async def _deliver(self, client: httpx.AsyncClient, waiting: _Message) -> None:
        """Until it was taken, refused for good, or tried often enough."""
        try:
            for attempt in range(self._rules.attempts):
                webhook = self._webhook
                if webhook is None:
                    self._lost(waiting, "the webhook was taken out of the configuration")
                    return
                problem, again_after_s = await self._attempt(client, webhook, waiting)
                if problem is None:
                    self._hooks.on_delivery("sent")
                    return
                if again_after_s is None or attempt == self._rules.attempts - 1:
                    self._lost(waiting, f"{webhook.host}: {problem}, after {attempt + 1} attempts")
                    return
                self._hooks.on_delivery("retried")
                log.info("alert webhook %s: %s; tried again", webhook.host, problem)
                await asyncio.sleep(max(again_after_s, self._wait_s(attempt)))
        except asyncio.CancelledError:
            self._lost(waiting, "the router stopped")
            raise

    async def _attempt(
        self, client: httpx.AsyncClient, webhook: Webhook, waiting: _Message
    ) -> tuple[str | None, float | None]:
        """One attempt: (problem, None if it was taken; seconds that the receiver asked to wait, None: never again)."""
        headers = {"content-type": "application/json", "x-spillway-delivery": waiting.id}
        if webhook.secret:
            headers["x-spillway-signature"] = signature(webhook.secret, int(self._wall()), waiting.body)
        try:
            async with (
                asyncio.timeout(self._rules.timeout_s),
                client.stream("POST", webhook.url, content=waiting.body, headers=headers) as response,
            ):
                status, wanted = response.status_code, response.headers.get("retry-after", "")
        except TimeoutError:
            return f"no answer within {self._rules.timeout_s:g} s", 0.0
        except httpx.TransportError as error:
            return type(error).__name__, 0.0
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"can't be asked ({type(error).__name__})", None
        if 200 <= status < 300:
            return None, None
        if status >= 500 or status in _RETRIED:
            asked = float(wanted) if wanted.isdecimal() and len(wanted) < 8 else 0.0
            return f"HTTP {status}", min(asked, self._rules.longest_wait_s)
        return f"HTTP {status}: mend alerts.webhook_url", None

    def _wait_s(self, attempt: int) -> float:
        full: float = min(self._rules.longest_wait_s, self._rules.first_wait_s * 2**attempt)
        return full * (1 - self._jitter() / 2)

    def _lost(self, waiting: _Message, why: str) -> None:
        self._hooks.on_delivery("lost")
        log.error("alert not delivered (%s): %s", why, waiting.about)


def sentence(alert: BudgetAlert) -> str:
    """The alert for people."""
    taken, limit = usd(alert.taken_nano), usd(alert.limit_nano)
    share = f"{float(alert.at * 100):g}"
    end = " Paid calls that don't fit are refused until the period ends." if alert.at == 1 else ""
    return f"budget {alert.scope} per {alert.period} reached {share}%: {taken} of {limit} USD spent or held.{end}"


def message(alert: BudgetAlert) -> _Message:
    """The webhook's message. Amounts are USD as decimal text."""
    identity = f"{alert.scope}|{alert.period}|{alert.period_start}|{alert.at}"
    values = {
        "scope": alert.scope,
        "period": alert.period,
        "period_start": datetime.fromtimestamp(alert.period_start, UTC).isoformat(),
        "at": str(alert.at),
        "limit_usd": usd(alert.limit_nano),
        "taken_usd": usd(alert.taken_nano),
    }
    return _message("budget_alert", sentence(alert), values, identity)


def _message(kind: str, said: str, values: Mapping[str, object], identity: str) -> _Message:
    """`text` is what chat receivers show."""
    body = json.dumps({"type": kind, "text": f"Spillway: {said}", **values})
    return _Message(hashlib.sha256(identity.encode()).hexdigest()[:32], body.encode(), said)


def signature(secret: str, at: int, body: bytes) -> str:
    """The signature header's value for a body sent at `at` (epoch seconds)."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
