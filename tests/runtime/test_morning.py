"""The morning report: once per day and way, the verdict first, retried, over restarts and several routers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from tests.runtime.receiver import Receiver
from tests.runtime.smtp_server import receiving

from spillway_router.config.derived import Webhook
from spillway_router.config.load import ConfigError
from spillway_router.config.settings import MorningPart
from spillway_router.dashboard.letter import Letter
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.alerts import AlertTable
from spillway_router.runtime.morning import ATTEMPTS_MIN, MorningPlan, MorningReport, MorningSources, morning_plan
from spillway_router.runtime.webhook import signature
from spillway_router.testing.business import BACKENDS, fill
from spillway_router.testing.harness import routing, serving

LETTER = Letter(
    day="2026-11-29",
    subject="The GPU saved $3.00 against the same work at groq (29 November 2026)",
    text="The GPU saved $3.00 against the same work at groq.\n",
    html="<p>The GPU saved $3.00</p>",
    attachment="<p>whole</p>",
    values={"type": "morning_report", "verdict": "The GPU saved $3.00 against the same work at groq."},
)


class Mornings:
    """What a morning report works with in a test; `wall_s` is the time, `asked` the days whose report was made."""

    def __init__(self, plan: MorningPlan, claims: AlertTable, zone: tzinfo = UTC) -> None:
        self.wall_s = 0.0
        self.asked: list[date] = []
        self.plan: MorningPlan | None = plan
        self._claims, self._zone = claims, zone

    def at(self, text: str) -> None:
        """Set the time, as local text."""
        self.wall_s = datetime.fromisoformat(text).replace(tzinfo=self._zone).timestamp()

    def router(self) -> MorningReport:
        """Return the morning report of one router."""
        sources = MorningSources(
            plan=lambda: self.plan,
            letter=self._letter,
            claims=self._claims,
            wall=lambda: self.wall_s,
            zone=lambda: self._zone,
        )
        return MorningReport(sources)

    async def _letter(self, day: date) -> Letter:
        self.asked.append(day)
        return LETTER


def claims_in(folder: Path) -> AlertTable:
    return open_ledger(f"sqlite:///{folder / 'ledger.db'}").alerts


async def test_it_is_sent_once_a_day_by_whichever_router_over_restarts(tmp_path: Path) -> None:
    receiver = Receiver()
    async with serving(receiver) as url:
        plan = MorningPlan(MorningPart(at="07:00"), Webhook(f"{url}/hook", "longsecret"))
        mornings = Mornings(plan, claims_in(tmp_path), ZoneInfo("Europe/Berlin"))
        mornings.at("2026-11-30T06:59")
        await mornings.router().check()
        assert receiver.seen == []
        mornings.at("2026-11-30T07:00")
        await asyncio.gather(*(mornings.router().check() for _ in range(4)))
        mornings.at("2026-11-30T23:59")
        other = Mornings(plan, claims_in(tmp_path), ZoneInfo("Europe/Berlin"))
        other.wall_s = mornings.wall_s
        await other.router().check()
        assert len(receiver.seen) == 1
        mornings.at("2026-12-01T07:00")
        await mornings.router().check()
    assert mornings.asked == [date(2026, 11, 29), date(2026, 11, 30)]
    (headers, body), (later, _) = receiver.seen
    assert json.loads(body)["verdict"].startswith("The GPU saved")
    sent_s = int(datetime(2026, 11, 30, 7, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    assert headers["x-spillway-signature"] == signature("longsecret", sent_s, body)
    assert headers["x-spillway-delivery"] == later["x-spillway-delivery"], "the test's letter is always of one day"


async def test_a_receiver_that_fails_is_asked_again_until_it_takes_the_report(tmp_path: Path) -> None:
    receiver = Receiver(statuses=[503, 404, 204])
    async with serving(receiver) as url:
        mornings = Mornings(MorningPlan(MorningPart(at="07:00"), Webhook(url)), claims_in(tmp_path))
        for minute in range(15):
            mornings.at(f"2026-11-30T07:{minute:02}")
            await mornings.router().check()
    assert len(receiver.seen) == 3
    assert len({headers["x-spillway-delivery"] for headers, _ in receiver.seen}) == 1


async def test_a_receiver_that_never_answers_is_asked_so_often_and_no_more(tmp_path: Path) -> None:
    receiver = Receiver(statuses=[500] * 50)
    async with serving(receiver) as url:
        mornings = Mornings(MorningPlan(MorningPart(at="07:00"), Webhook(url)), claims_in(tmp_path))
        mornings.at("2026-11-30T22:00")
        for _ in range(len(ATTEMPTS_MIN) + 3):
            await mornings.router().check()
    assert len(receiver.seen) == len(ATTEMPTS_MIN)


async def test_a_mail_has_the_verdict_as_its_subject_and_the_report_with_it(tmp_path: Path) -> None:
    with receiving() as box:
        box.replies.append("451 try later")
        mail = {"host": "127.0.0.1", "port": box.port, "security": "none", "user": "u", "password": "pass-word"}
        part = MorningPart.model_validate({"mail": {**mail, "sender": "a@example.com", "to": ["b@x.io", "c@x.io"]}})
        mornings = Mornings(MorningPlan(part, None), claims_in(tmp_path))
        for minute in range(4):
            mornings.at(f"2026-11-30T07:{minute:02}")
            await mornings.router().check()
    (received,) = box.mails
    assert received["subject"] == LETTER.subject
    assert received["to"] == "b@x.io, c@x.io"
    kinds = [part.get_content_type() for part in received.walk() if not part.is_multipart()]
    assert kinds == ["text/plain", "text/html", "text/html"]
    body = received.get_body(("plain",))
    assert body is not None
    assert body.get_content().splitlines() == LETTER.text.splitlines()
    assert [part.get_filename() for part in received.iter_attachments()] == ["spillway-2026-11-29.html"]
    assert len(box.logins) == 2


@pytest.mark.parametrize(
    ("morning", "problem"),
    [
        ("{at: '07:00'}", "sends the report to nobody"),
        ("{at: '7:00', webhook_url: 'http://h/x'}", "report.morning.at"),
        ("{webhook_url: 'hooks/x'}", "write a complete URL"),
        ("{mail: {host: h, sender: a@b.c, to: [nobody]}}", "report.morning.mail.to"),
        ("{mail: {host: h, security: none, password: p, sender: a@b.c, to: [a@b.c]}}", "in clear"),
    ],
)
async def test_mistakes_are_told(morning: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        async with routing(f"report: {{morning: {morning}}}\n"):
            pass
    assert problem in str(raised.value)


async def test_a_running_router_makes_the_letter_of_its_ledger(tmp_path: Path) -> None:
    receiver = Receiver()
    async with serving(receiver) as url:
        morning = f"report: {{morning: {{at: '00:00', webhook_url: '{url}'}}}}\n"
        day = datetime.now(UTC).date()
        ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        fill(ledger, date.fromordinal(day.toordinal() - 3), 3, Random(7), per_day=40, size=500)
        ledger.close()
        async with routing(f"backends:{BACKENDS}\n{morning}", tmp_path, wait=False) as router:
            await router.until(lambda: bool(receiver.seen))
            plan = morning_plan(router.runtime.config)
            assert plan is not None
            assert plan.ways == ("webhook",)
    values = json.loads(receiver.seen[0][1])
    assert values["type"] == "morning_report"
    assert values["text"].startswith("Spillway, ")
    assert values["verdict"] in values["text"]
    assert values["verdict"].startswith("The GPU cost $")
    assert values["html"].startswith("<!doctype html>")
    assert "<script" not in values["html"]
    assert values["answers"] > 0
