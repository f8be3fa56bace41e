"""Alerts for people, written to the log and posted to a webhook.

These things raise an alert: a budget threshold (once per period and cap, also counted as a metric), a charge above its
hold, a ledger that is away and one that is back, audits that contradict the confidence threshold, a configured
calibration that is not used, a local engine that leaves the rotation and its return, and a background task of the
router that has stopped.

Raising an alert never waits. Messages for the webhook go through a bounded queue to one worker, which sends them in
order and retries with growing, jittered waits while the receiver is unreachable. A message that can't be delivered ends
as a logged loss, never as a delayed request. The receiver's address comes from the configuration only.

If a secret is set, each message is signed (the scheme that payment providers use, so receivers have code for it):

    x-spillway-signature: t=<epoch seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>" with the secret>

`x-spillway-delivery` is the same for every attempt to deliver one message, so that a receiver can drop duplicates.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from spillway_router.aio.enduring import Enduring
from spillway_router.config.derived import Webhook
from spillway_router.core.money.budget import BudgetAlert
from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.anchor import AnchoredHead
from spillway_router.ledger.holds import ExcessCharge
from spillway_router.ledger.writer import WriterHealth
from spillway_router.runtime.webhook import Delivery, FailedAttempt, post_once, webhook_client
from spillway_router.signals.outages import EngineOutage

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("spillway.alerts")

DeliveryResult = Literal["sent", "retried", "lost"]


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """Limits of delivery. Waits double from the first to the longest; each is shortened at random by up to half."""

    attempts: int = 8
    timeout_s: float = 5.0
    """For one attempt, from connecting to the head of the answer."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    queue: int = 256
    """Messages that may wait. A further message is lost, which is logged."""


@dataclass(frozen=True, slots=True)
class AlertHooks:
    """Callbacks for metrics: each budget alert, and the result of each delivery."""

    on_alert: Callable[[BudgetAlert], None]
    on_delivery: Callable[[DeliveryResult], None]
    on_excess: Callable[[ExcessCharge], None] = lambda _excess: None


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    body: bytes
    text: str


class Alerts:
    """Raises and delivers alerts. Call `start` inside the event loop and `close` when done.

    Alerts that are raised before the start wait in the queue. `wall` is epoch seconds; `jitter` returns numbers in
    [0, 1).
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
        self._excess_hours: dict[str, int] = {}
        """By backend: the hour since the epoch of the last message about a charge above its hold."""
        self._calibration_problems: tuple[str, ...] = ()
        self._queue: asyncio.Queue[_Message] = asyncio.Queue(self._rules.queue)
        self._started_s = wall()
        self._worker: Enduring | None = None

    def configure(self, webhook: Webhook | None) -> None:
        """Set the receiver. Messages that wait go to the new one."""
        self._webhook = webhook

    def budget_reached(self, alert: BudgetAlert) -> None:
        """Report that a budget reached a threshold. The caller reports each threshold once."""
        log.warning("%s", sentence(alert))
        self._hooks.on_alert(alert)
        self._post(budget_message(alert))

    def charge_above_hold(self, excess: ExcessCharge) -> None:
        """Report that a call cost more than was held for it. Each one is logged; the webhook hears of a backend once an
        hour."""
        money = Amounts().money
        text = (
            f"attempt {excess.attempt_no} of request {excess.request_id} cost {money(excess.charge_nano)} at "
            f"{excess.backend}, more than the {money(excess.bound_nano)} that were held for it: the hold was no "
            "upper bound. Compare the price and the request with the provider's bill; budgets may be overspent."
        )
        log.error("%s", text)
        self._hooks.on_excess(excess)
        hour = int(self._wall() // 3600)
        if self._excess_hours.get(excess.backend) != hour:
            self._excess_hours[excess.backend] = hour
            values = {
                "backend": excess.backend,
                "request_id": excess.request_id,
                "charge_usd": usd(excess.charge_nano),
                "held_usd": usd(excess.bound_nano),
            }
            self._post(_message("charge_above_hold", text, values, f"excess|{excess.backend}|{hour}"))

    def certificate_revoked(self, kind: str, losses: int, audits: int) -> None:
        """Report that audits contradict the confidence threshold of a kind of answers (chat, document).

        The caller reports each revocation once.
        """
        text = (
            f"{losses} of the last {audits} audited local answers ({kind}) were wrong, which the threshold rules out. "
            "No local answer is kept until it changes: label new answers, run `spillway calibrate`, and load the new "
            "calibration."
        )
        log.warning("%s", text)
        values = {"kind": kind, "wrong": losses, "audits": audits}
        self._post(_message("certificate_revoked", text, values, f"certificate|{kind}|{self._wall()}"))

    def calibration_unused(self, problems: Sequence[str]) -> None:
        """Report why the configured calibration is not used, in addition to the log.

        Each problem is reported once, and again if it was fixed in between.
        """
        before, self._calibration_problems = self._calibration_problems, tuple(problems)
        for problem in problems:
            if problem not in before:
                text = f"confidence.calibration {problem}."
                self._post(_message("calibration_unused", text, {}, f"calibration|{problem}|{self._wall()}"))

    def engine_outage(self, outage: EngineOutage) -> None:
        """Report that an engine left the rotation or is back. The caller reports each once."""
        values: dict[str, object] = {"backend": outage.engine, "reason": outage.reason, "outage": outage.number}
        identity = f"engine|{outage.engine}|{outage.number}|{self._started_s}"
        if outage.seconds is None:
            text = f"engine {outage.engine} left the rotation ({outage.reason}); its requests go elsewhere."
            log.error("%s", text)
            self._post(_message("engine_down", text, values, f"{identity}|down"))
        else:
            text = f"engine {outage.engine} is back after {outage.seconds:.1f} s ({outage.reason})."
            log.warning("%s", text)
            values["down_s"] = round(outage.seconds, 1)
            self._post(_message("engine_up", text, values, f"{identity}|up"))

    def task_stopped(self, task: str, trouble: str) -> None:
        """Post that a background task of this router has stopped. The watchdog logs it and reports it once."""
        text = f"the background task {task} of the router has stopped: {trouble}."
        values = {"task": task, "trouble": trouble}
        self._post(_message("task_stopped", text, values, f"task|{task}|{self._wall()}"))

    def ledger_anchored(self, head: AnchoredHead) -> None:
        """Post the head of the ledger's hash chain."""
        text = f"the ledger has {head.rows} rows, and the head of its chain is {head.head}."
        self._post(_message("ledger_anchored", text, asdict(head), f"anchor|{head.ledger}|{head.rows}|{head.head}"))

    def clock_jumped(self, ahead_s: float) -> None:
        """Report that the wall clock jumped; the log has it already."""
        text = f"the wall clock jumped by {ahead_s:+.0f} s; budgets stay with the time before. Set the clock right."
        self._post(_message("clock_jumped", text, {"ahead_s": round(ahead_s)}, f"clock|{self._wall()}"))

    def ledger_changed(self, health: WriterHealth) -> None:
        """Report that the ledger is away, and that it is back."""
        if health.degraded:
            text = f"the ledger can't write ({health.reason}): paid calls are refused, local requests are still served."
            log.error("%s", text)
        else:
            text = "the ledger can write again."
            log.warning("%s", text)
        values = {"up": not health.degraded, "reason": health.reason}
        self._post(_message("ledger_health", text, values, f"ledger|{health.degraded}|{self._wall()}"))

    def _post(self, message: _Message) -> None:
        if self._webhook is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._lose(message, f"{self._rules.queue} messages wait already")

    def start(self) -> None:
        """Start to deliver."""
        self._worker = Enduring("alerts", self._deliver_forever)
        self._worker.start()

    async def close(self, flush_s: float) -> None:
        """Deliver the messages that wait, for at most `flush_s` seconds. The rest is logged as lost."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await self._queue.join()
        try:
            await worker.stop()
        finally:
            while not self._queue.empty():
                self._lose(self._queue.get_nowait(), "the router stopped")

    async def _deliver_forever(self) -> None:
        message = await self._queue.get()  # before the client is made: it reads all certificates, 0.8 MB
        async with webhook_client() as client:
            while True:
                try:
                    await self._deliver(client, message)
                finally:
                    self._queue.task_done()
                message = await self._queue.get()

    async def _deliver(self, client: httpx.AsyncClient, message: _Message) -> None:
        """Send one message until the receiver accepts it, rejects it for good, or the attempts are used up."""
        try:
            for attempt in range(self._rules.attempts):
                webhook = self._webhook
                if webhook is None:
                    self._lose(message, "the webhook was removed from the configuration")
                    return
                failed = await self._attempt(client, webhook, message)
                if failed is None:
                    self._hooks.on_delivery("sent")
                    return
                if failed.retry_after_s is None or attempt == self._rules.attempts - 1:
                    self._lose(message, f"{webhook.host}: {failed.problem}, after {attempt + 1} attempts")
                    return
                self._hooks.on_delivery("retried")
                log.info("alert webhook %s: %s; retrying", webhook.host, failed.problem)
                await asyncio.sleep(max(failed.retry_after_s, self._wait_s(attempt)))
        except asyncio.CancelledError:
            self._lose(message, "the router stopped")
            raise

    async def _attempt(self, client: httpx.AsyncClient, webhook: Webhook, message: _Message) -> FailedAttempt | None:
        """Post the message once. Return None if the receiver accepted it."""
        delivery = Delivery(
            id=message.id,
            body=message.body,
            sent_s=int(self._wall()),
            timeout_s=self._rules.timeout_s,
            longest_wait_s=self._rules.longest_wait_s,
        )
        return await post_once(client, webhook, delivery, "alerts.webhook_url")

    def _wait_s(self, attempt: int) -> float:
        full: float = min(self._rules.longest_wait_s, self._rules.first_wait_s * 2**attempt)
        return full * (1 - self._jitter() / 2)

    def _lose(self, message: _Message, reason: str) -> None:
        self._hooks.on_delivery("lost")
        log.error("alert not delivered (%s): %s", reason, message.text)


def sentence(alert: BudgetAlert) -> str:
    """Return the alert as text for people."""
    money = Amounts().money
    amounts = f"{money(alert.spent_nano)} of {money(alert.limit_nano)} spent, {money(alert.held_nano)} held"
    share = f"{float(alert.at * 100):g}"
    event = "refused a call that did not fit" if alert.refused else f"reached {share}%"
    text = f"budget {alert.scope} per {alert.period} {event}: {amounts}."
    return text + (" Paid calls that don't fit are refused until the period ends." if alert.at == 1 else "")


def budget_message(alert: BudgetAlert) -> _Message:
    """Return the webhook's message about a budget. Amounts are USD as decimal text."""
    identity = f"{alert.scope}|{alert.period}|{alert.period_start_s}|{alert.at}|{alert.limit_nano}"
    values = {
        "scope": alert.scope,
        "period": alert.period,
        "period_start": datetime.fromtimestamp(alert.period_start_s, UTC).isoformat(),
        "at": str(alert.at),
        "limit_usd": usd(alert.limit_nano),
        "taken_usd": usd(alert.spent_nano + alert.held_nano),
        "spent_usd": usd(alert.spent_nano),
        "held_usd": usd(alert.held_nano),
        "refused": alert.refused,
    }
    return _message("budget_alert", sentence(alert), values, identity)


def _message(kind: str, text: str, values: Mapping[str, object], identity: str) -> _Message:
    """Return a message. Its `text` field is what chat receivers show; equal identities give equal message ids."""
    body = json.dumps({"type": kind, "text": f"Spillway: {text}", **values})
    return _Message(hashlib.sha256(identity.encode()).hexdigest()[:32], body.encode(), text)
