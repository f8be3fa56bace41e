"""Sends the morning report: once a day and way, whichever router does it and however often one starts anew.

An attempt is claimed in the ledger before it is made, and so is the success of one. A router that ends in the middle of
an attempt loses only that one: the next is made later, by any router. What was sent and could not be noted comes
again, with the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.config.derived import DerivedConfig, Webhook
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.alerts import AlertTable
from spillway_router.runtime.webhook import Delivery, post_once, webhook_client

if TYPE_CHECKING:
    from spillway_router.config.settings import MorningPart
    from spillway_router.core.money.budget import AlertKey
    from spillway_router.dashboard.letter import Letter

log = logging.getLogger("spillway")

Way = Literal["webhook", "mail"]
ATTEMPTS_MIN = (0, 1, 3, 10, 30, 60, 120, 240, 480)
"""When the attempts are due, in minutes after the configured time."""
TICK_S = 30.0
WEBHOOK_S = 15.0
_SENT = 0
"""The claim that an attempt of this day succeeded; the attempts themselves count from 1."""


@dataclass(frozen=True, slots=True)
class MorningPlan:
    """What is configured: the part, and the webhook if one is to get the report."""

    part: MorningPart
    webhook: Webhook | None

    @property
    def ways(self) -> tuple[Way, ...]:
        """How the report is sent."""
        by_webhook: tuple[Way, ...] = () if self.webhook is None else ("webhook",)
        return by_webhook if self.part.mail is None else (*by_webhook, "mail")


def morning_plan(config: DerivedConfig) -> MorningPlan | None:
    """Return what a configuration says of the morning report; None if it says nothing."""
    settings = config.loaded.settings
    part = settings.report.morning
    if part is None:
        return None
    url = part.webhook_url or settings.alerts.webhook_url
    webhook = Webhook(url, settings.alerts.secret or "") if part.webhook and url is not None else None
    return MorningPlan(part, webhook)


@dataclass(frozen=True, slots=True)
class MorningSources:
    """What the reports are made of: `plan` is None while none is configured, `letter` makes that of a day, `wall` is
    epoch seconds."""

    plan: Callable[[], MorningPlan | None]
    letter: Callable[[date], Awaitable[Letter]]
    claims: AlertTable
    wall: Callable[[], float]
    zone: Callable[[], tzinfo]


class MorningReport:
    """Sends the report of each day. Call `start` inside the event loop and `stop` when done."""

    def __init__(self, sources: MorningSources) -> None:
        self._sources = sources
        self._periodic = Periodic("morning report", Rhythm(TICK_S), self.check)

    def start(self) -> None:
        """Start to send."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop to send."""
        await self._periodic.stop()

    async def check(self) -> None:
        """Make the attempts that are due."""
        plan = self._sources.plan()
        if plan is None:
            return
        now = datetime.fromtimestamp(self._sources.wall(), self._sources.zone())
        since_min = now.hour * 60 + now.minute - plan.part.minute
        if since_min < 0:
            return
        for way in plan.ways:
            try:
                await self._attempt(plan, way, now, since_min)
            except LedgerError as error:
                log.warning("the morning report waits for the ledger: %s", error)

    async def _attempt(self, plan: MorningPlan, way: Way, now: datetime, since_min: int) -> None:
        number = await LEDGER_CALLS.run(self._claimed_attempt, way, now, since_min)
        if number is None:
            return
        day = now.date() - timedelta(days=1)
        letter = await self._sources.letter(day)
        problem = await self._send(plan, way, letter)
        if problem:
            log.warning("attempt %d to send the report of %s by %s failed: %s", number, day, way, problem)
            return
        await LEDGER_CALLS.run(self._sources.claims.claim, _key(way, now, _SENT), int(now.timestamp() * 1000))
        log.info("the report of %s was sent by %s", day, way)

    def _claimed_attempt(self, way: Way, now: datetime, since_min: int) -> int | None:
        """Claim the first attempt that is due and nobody has made; None if there is none, or the report was sent."""
        claims, now_ms = self._sources.claims, int(now.timestamp() * 1000)
        if claims.is_claimed(_key(way, now, _SENT)):
            return None
        due = [number for number, minutes in enumerate(ATTEMPTS_MIN, 1) if minutes <= since_min]
        return next((number for number in due if claims.claim(_key(way, now, number), now_ms)), None)

    async def _send(self, plan: MorningPlan, way: Way, letter: Letter) -> str:
        """Send a letter; return why it was not taken, "" if it was."""
        identity = hashlib.sha256(f"morning|{way}|{letter.day}".encode()).hexdigest()[:32]
        if way == "mail":
            from spillway_router.runtime.mail import MailError, send_mail

            assert plan.part.mail is not None
            try:
                await asyncio.to_thread(send_mail, plan.part.mail, letter, identity)
            except MailError as error:
                return str(error)
            return ""
        assert plan.webhook is not None
        message = Delivery(
            id=identity,
            body=json.dumps(letter.values).encode(),
            sent_s=int(self._sources.wall()),
            timeout_s=WEBHOOK_S,
        )
        async with webhook_client() as client:
            failed = await post_once(client, plan.webhook, message, "report.morning.webhook_url")
        return "" if failed is None else f"{plan.webhook.host}: {failed.problem}"


def _key(way: Way, now: datetime, number: int) -> AlertKey:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return f"report:morning/{way}", "day", int(midnight.timestamp()), Decimal(number), 0
