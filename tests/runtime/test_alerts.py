"""Alerts against a real receiver that fails, hangs or is unreachable, and then answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import pytest
from tests.runtime.receiver import HANGS, Receiver

from spillway_router.config.derived import Webhook
from spillway_router.core.money.budget import BudgetAlert
from spillway_router.ledger.holds import ExcessCharge
from spillway_router.runtime.alerts import (
    AlertHooks,
    Alerts,
    DeliveryRules,
    budget_message,
    sentence,
)
from spillway_router.runtime.webhook import signature
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, routing, serving, settings
from spillway_server import demo_model

ALERT = BudgetAlert(
    scope="all",
    period="day",
    period_start_s=1_700_006_400,
    at=Decimal("0.8"),
    limit_nano=50 * 10**9,
    spent_nano=41 * 10**9,
    held_nano=10**9,
)
QUICK = DeliveryRules(attempts=4, timeout_s=20.0, first_wait_s=0.01, longest_wait_s=0.02, queue=4)
IMPATIENT = replace(QUICK, attempts=1000, timeout_s=0.2)
"""For a receiver that hangs. On a machine that stands still any attempt may run out of time, so no number is exact."""
BROKEN = Answer.json({"error": {"message": "broken"}}, 500)


@dataclass
class HookCalls:
    """Records the calls of the hooks; `over` is set when a message was sent or lost."""

    alerts: list[BudgetAlert] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def delivery(self, result: str) -> None:
        self.results.append(result)
        if result != "retried":
            self.over.set()

    @property
    def hooks(self) -> AlertHooks:
        return AlertHooks(self.alerts.append, self.delivery)

    async def until_over(self) -> None:
        async with asyncio.timeout(10):
            await self.over.wait()


@asynccontextmanager
async def alerting(
    url: str, secret: str = "", rules: DeliveryRules = QUICK, flush_s: float = 0.0
) -> AsyncIterator[tuple[Alerts, HookCalls]]:
    calls = HookCalls()
    alerts = Alerts(calls.hooks, Webhook(url, secret), rules, wall=lambda: 1_700_000_000.9, jitter=lambda: 0.0)
    alerts.start()
    try:
        yield alerts, calls
    finally:
        await alerts.close(flush_s)


async def test_an_alert_is_posted_signed_and_readable() -> None:
    receiver = Receiver()
    async with serving(receiver) as url, alerting(url + "/hook", "whsec-12345") as (alerts, calls):
        alerts.budget_reached(ALERT)
        await calls.until_over()
    assert calls.results == ["sent"]
    [(headers, body)] = receiver.seen
    assert json.loads(body) == {
        "type": "budget_alert",
        "text": "Spillway: budget all per day reached 80%: $41.00 of $50.00 spent, $1.00 held.",
        "scope": "all",
        "period": "day",
        "period_start": "2023-11-15T00:00:00+00:00",
        "at": "0.8",
        "limit_usd": "50.000000",
        "taken_usd": "42.000000",
        "spent_usd": "41.000000",
        "held_usd": "1.000000",
        "refused": False,
    }
    digest = hmac.new(b"whsec-12345", b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["x-spillway-signature"] == f"t=1700000000,v1={digest}"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("failures", [[500, 503, 502], [429, 408]])
async def test_an_alert_is_retried_until_a_failing_receiver_accepts_it(failures: list[int]) -> None:
    receiver = Receiver(list(failures))
    async with serving(receiver) as url, alerting(url) as (alerts, calls):
        alerts.budget_reached(ALERT)
        await calls.until_over()
    assert calls.results == [*["retried"] * len(failures), "sent"]
    ids = {headers["x-spillway-delivery"] for headers, _ in receiver.seen}
    assert ids == {budget_message(ALERT).id}
    assert len(receiver.seen) == len(failures) + 1
    assert "x-spillway-signature" not in receiver.seen[0][0]


@pytest.mark.parametrize("failures", [[HANGS], [500, HANGS, 500]])
async def test_an_alert_is_retried_when_a_receiver_hangs(failures: list[int]) -> None:
    receiver = Receiver(list(failures))
    async with serving(receiver) as url, alerting(url, rules=IMPATIENT) as (alerts, calls):
        alerts.budget_reached(ALERT)
        await calls.until_over()
    assert calls.results[-1] == "sent"
    assert set(calls.results[:-1]) == {"retried"}
    assert receiver.statuses == []
    assert len(calls.results) > len(failures)
    assert {headers["x-spillway-delivery"] for headers, _ in receiver.seen} == {budget_message(ALERT).id}


async def test_an_unreachable_receiver_gets_the_alert_when_it_is_back() -> None:
    receiver = Receiver()
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused, and nobody takes the port
        patient = replace(QUICK, attempts=1000)
        async with alerting("http://127.0.0.1:{1}".format(*place.getsockname()), rules=patient) as (alerts, calls):
            alerts.budget_reached(ALERT)
            async with asyncio.timeout(10):
                while "retried" not in calls.results:
                    await asyncio.sleep(0.001)
            place.listen()
            place.setblocking(False)
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(place)
            with connection:
                data = b""
                while b"budget_alert" not in data:
                    data += await loop.sock_recv(connection, 65536)
                await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await calls.until_over()
    assert calls.results[-1] == "sent"
    assert receiver.seen == []


async def test_delivery_gives_up_after_the_attempts_and_logs_the_loss(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver([500] * 9)
    async with serving(receiver) as url, alerting(url + "/T0P-SECRET") as (alerts, calls):
        alerts.budget_reached(ALERT)
        await calls.until_over()
        calls.over.clear()
        alerts.budget_reached(replace(ALERT, scope="key:k1"))  # the next message has attempts of its own
        await calls.until_over()
    assert calls.results == [*["retried"] * 3, "lost"] * 2
    assert len(receiver.seen) == 8
    assert "alert not delivered (127.0.0.1: HTTP 500, after 4 attempts): budget all per day reached 80%" in caplog.text
    assert "T0P-SECRET" not in caplog.text


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
async def test_a_permanent_refusal_is_not_retried(status: int, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver([status], [(b"location", b"/elsewhere")])
    async with serving(receiver) as url, alerting(url) as (alerts, calls):
        alerts.budget_reached(ALERT)
        await calls.until_over()
    assert calls.results == ["lost"]
    assert len(receiver.seen) == 1
    assert f"HTTP {status}: correct alerts.webhook_url" in caplog.text


async def test_each_threshold_and_each_refusal_is_told_in_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    receiver = Receiver()
    async with serving(receiver) as url, alerting(url, flush_s=10) as (alerts, calls):
        raised = replace(ALERT, limit_nano=ALERT.limit_nano + 1)
        others = [replace(ALERT, at=Decimal(1)), replace(ALERT, at=Decimal(1), refused=True, scope="tier:t")]
        for alert in (ALERT, raised, *others):
            alerts.budget_reached(alert)
        assert calls.alerts == [ALERT, raised, *others]
    assert calls.results == ["sent"] * 4
    assert len({headers["x-spillway-delivery"] for headers, _ in receiver.seen}) == 4
    assert "reached 100%: $41.00 of $50.00 spent, $1.00 held. Paid calls that don't fit" in caplog.text
    assert "budget tier:t per day refused a call that did not fit: $41.00 of $50.00 spent" in caplog.text


async def test_a_charge_above_its_hold_is_told_at_once_and_once_an_hour_for_a_backend() -> None:
    receiver = Receiver()
    excess = ExcessCharge(request_id="r1", attempt_no=2, backend="b", charge_nano=3 * 10**9, bound_nano=10**9)
    async with serving(receiver) as url, alerting(url, flush_s=10) as (alerts, calls):
        for each in (excess, replace(excess, request_id="r2"), replace(excess, backend="c")):
            alerts.charge_above_hold(each)
    assert calls.results == ["sent"] * 2
    bodies = [json.loads(body) for _, body in receiver.seen]
    assert [(body["type"], body["backend"], body["request_id"]) for body in bodies] == [
        ("charge_above_hold", "b", "r1"),
        ("charge_above_hold", "c", "r1"),
    ]
    assert "cost $3.00 at b, more than the $1.00 that were held" in bodies[0]["text"]


async def test_a_full_queue_loses_the_newest_and_never_waits(caplog: pytest.LogCaptureFixture) -> None:
    calls = HookCalls()
    alerts = Alerts(calls.hooks, Webhook("http://127.0.0.1:9"), QUICK)  # not started: nothing leaves the queue
    for i in range(6):
        alerts.budget_reached(replace(ALERT, scope=f"key:k{i}"))
    assert calls.results == ["lost", "lost"]
    assert len(calls.alerts) == 6
    await alerts.close(0)
    assert "alert not delivered (4 messages wait already): budget key:k4" in caplog.text


async def test_stopping_is_bounded_and_undelivered_alerts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver([HANGS] * 9)
    slow = replace(QUICK, timeout_s=60.0)
    async with serving(receiver) as url:
        async with alerting(url, rules=slow, flush_s=0.05) as (alerts, calls):
            alerts.budget_reached(ALERT)
            alerts.budget_reached(replace(ALERT, at=Decimal(1)))
            async with asyncio.timeout(10):
                while not receiver.seen:
                    await asyncio.sleep(0.001)
        assert calls.results == ["lost", "lost"]
    assert caplog.text.count("the router stopped") == 2


async def test_a_reload_can_take_the_receiver_away() -> None:
    calls = HookCalls()
    receiver = Receiver([500] * 9)
    async with serving(receiver) as url:
        alerts = Alerts(calls.hooks, Webhook(url), QUICK)
        alerts.budget_reached(ALERT)
        alerts.configure(None)
        alerts.start()
        await calls.until_over()
        alerts.budget_reached(replace(ALERT, at=Decimal(1)))
        await alerts.close(10)
    assert calls.results == ["lost"]
    assert receiver.seen == []
    assert len(calls.alerts) == 2


def test_waits_double_up_to_a_bound_and_are_jittered() -> None:
    rules = DeliveryRules(first_wait_s=1, longest_wait_s=8)
    full = Alerts(HookCalls().hooks, rules=rules, jitter=lambda: 0.0)
    half = Alerts(HookCalls().hooks, rules=rules, jitter=lambda: 1.0)
    assert [full._wait_s(i) for i in range(5)] == [1, 2, 4, 8, 8]
    assert [half._wait_s(i) for i in range(5)] == [0.5, 1, 2, 4, 4]


def test_neither_address_nor_secret_is_shown() -> None:
    webhook = Webhook("https://hooks.example/T0P", "s3cret")
    assert repr(webhook) == "Webhook()"
    assert webhook.host == "hooks.example"
    assert signature("s", 1, b"x") != signature("s", 2, b"x")
    assert sentence(replace(ALERT, at=Decimal("0.555"))).startswith("budget all per day reached 55.5%")


async def test_a_router_reports_a_budget_that_runs_low_without_delaying_requests() -> None:
    """From a request to the receiver: bytes, tariff, budget, alert, webhook, metric. The receiver takes its time."""

    def answer(tokens: int) -> Answer:
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 2, "completion_tokens": tokens - 1}  # 1 and 2 USD per million
        return Answer.json({"choices": [choice], "usage": usage})

    gate = asyncio.Event()
    receiver = Receiver(gate=gate)
    async with serving(receiver) as hook, FaultUpstream(BROKEN) as engine, FaultUpstream(answer(250_000)) as strong:
        more = (
            'budgets: [{scope: all, period: month, limit_usd: "1", alert_at: [0.5, 0.99]}]\n'
            f'alerts: {{webhook_url: "{hook}/hook", secret: "12345678"}}\n'
        )
        async with routing(settings(local(engine), cloud(strong), more=more)) as router:
            reply = await router.chat({"max_tokens": 250_000})
            assert (reply.status_code, reply.headers["x-spillway-cost-usd"]) == (200, "0.500000")
            await router.until(lambda: len(receiver.seen) == 1)
            strong.answer = answer(249_000)
            again = await router.chat({"max_tokens": 249_000})  # while the receiver has not answered
            assert again.status_code == 200
            metrics = (await router.client.get("/metrics")).text
            assert 'spillway_budget_alerts_total{at="0.5",period="month",scope="all"} 1.0' in metrics
            await router.runtime.accounts.refresh(router.ledger)
            gate.set()
    assert [json.loads(body)["at"] for _, body in receiver.seen] == ["0.5", "0.99"]  # at stop, what waits is sent


async def test_a_revoked_certificate_is_posted(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    async with serving(receiver) as url, alerting(url, flush_s=10) as (alerts, calls):
        alerts.certificate_revoked("chat", 7, 40)
    assert calls.results == ["sent"]
    [(_, body)] = receiver.seen
    said = json.loads(body)
    assert (said["type"], said["kind"], said["wrong"], said["audits"]) == ("certificate_revoked", "chat", 7, 40)
    assert "Spillway: 7 of the last 40 audited local answers (chat) were wrong" in said["text"]
    assert said["text"].removeprefix("Spillway: ") in caplog.text


async def test_an_unused_calibration_is_posted_once_until_it_is_fixed() -> None:
    receiver = Receiver()
    async with serving(receiver) as url, alerting(url, flush_s=10) as (alerts, _):
        for names in ("a", "ab", "", "a"):
            alerts.calibration_unused([f"is not used for {name}" for name in names])
    texts = [json.loads(body)["text"] for _, body in receiver.seen]
    assert texts == [f"Spillway: confidence.calibration is not used for {name}." for name in "aba"]


async def test_a_router_posts_that_its_calibration_was_made_for_something_else(tmp_path: Path) -> None:
    calibration = Path(demo_model.__file__).with_name("calibration.json")
    receiver = Receiver()
    async with serving(receiver) as hook, FaultUpstream() as engine:
        more = f"confidence: {{calibration: '{calibration}'}}\nalerts: {{webhook_url: '{hook}'}}\n"
        async with routing(settings(local(engine), more=more), tmp_path) as router:
            await router.until(lambda: len(receiver.seen) == 1)
            assert await router.runtime.reload("a test") == []
    [(_, body)] = receiver.seen  # at stop, what waits is sent
    said = json.loads(body)
    assert said["type"] == "calibration_unused"
    assert "was made for the model" in said["text"]
