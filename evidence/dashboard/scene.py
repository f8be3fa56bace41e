"""A router with a past: four weeks of a made-up business in its ledger, and requests that ended a moment ago."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from urllib.parse import quote

from evidence.dashboard.browser import Place, Story
from spillway_router.core.routing.experiments import UNIT_DIGITS
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Write
from spillway_router.ledger.tables.feedback import FeedbackRecord
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.ledger.tables.reviews import ReviewRecord
from spillway_router.testing import FakeEngine
from spillway_router.testing.business import fill
from spillway_router.testing.harness import Router, routing, serving

DAYS = 28
PER_DAY = 350
SIZE = 20
_PRICES = {
    "groq": ("gpt-oss-20b", '{input_per_million: "0.075", output_per_million: "0.30"}'),
    "openai": ("gpt-4.1", '{input_per_million: "2", output_per_million: "8"}'),
}
_MORE = """
gpu: {name: a100-80, price_per_hour: "1.39"}
fleet: {max: 3}
confidence: {threshold: 0.6, escalate_to: [openai]}
budgets: [{scope: all, period: month, limit_usd: "300"}, {scope: all, period: day, limit_usd: "12"}]
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The router, and the first and the last of its days."""

    router: Router
    first: date
    last: date
    requests: int
    key: str
    """An administrator's key, which may also choose the backend."""

    @property
    def old_id(self) -> str:
        """The id of a request that only the ledger knows."""
        return f"{first_id(start_of(self.first))}{0:017x}"

    @property
    def money(self) -> str:
        """The address of the Money page of these days, compared with the dearer model."""
        return f"/money?from={self.first}&to={self.last}&against={quote('openai (gpt-4.1)')}"


@asynccontextmanager
async def business(folder: Path, *, per_day: int = PER_DAY, size: int = SIZE, more: str = "") -> AsyncIterator[Scene]:
    """Run a router whose ledger in `folder` holds four weeks, and that has answered some requests."""
    engine = FakeEngine(["The", " right", " eye", "."], [-0.05] * 4)
    cloud = FakeEngine(["The", " left", " one", "."], [-0.01] * 4)
    async with serving(engine) as engine_url, serving(cloud) as cloud_url:
        lines = [f"{{name: local, provider: vllm, local: true, model: m, base_url: '{engine_url}/v1'}}"]
        for name, (model, price) in _PRICES.items():
            place = f"provider: generic, model: {model}, api_key: k, base_url: '{cloud_url}/v1'"
            lines.append(f"{{name: {name}, {place}, price: {price}}}")
        text = "backends:\n" + "".join(f"  - {line}\n" for line in lines) + _MORE + more
        async with routing(text, folder) as router:
            last = datetime.now(UTC).date() - timedelta(days=1)
            first = last - timedelta(days=DAYS - 1)
            requests = await asyncio.to_thread(fill, router.ledger, first, DAYS, Random(7), per_day=per_day, size=size)
            key = _key(router)
            await _ask(router, engine, key)
            await asyncio.to_thread(_judge, router.ledger, last)
            for number in range(3):
                router.ledger.reviews.add(_review(number, int(router.runtime.services.wall() * 1000)))
            yield Scene(router=router, first=first, last=last, requests=requests, key=key)


def _judge(ledger: Ledger, last: date) -> None:
    """Store what audits, ratings and an experiment said on the last day."""
    rng, at = Random(11), start_of(last)
    for number in range(120):
        confidence = rng.uniform(0.6, 1.0)
        ledger.labels.put(
            LabelRecord(
                request_id=f"{first_id(at + number)}{number:017x}",
                ts=at + number,
                task="chat",
                backend="local",
                model="m",
                judge="openai",
                confidence=confidence,
                right=rng.random() < confidence,
                scores="{}",
            )
        )
    for number, rating in enumerate((5, 4, 4, 2)):
        record = FeedbackRecord(
            request_id=f"{first_id(at)}{number:017x}",
            ts=at + number,
            key_id="",
            backend="local",
            model="m",
            rating=rating,
        )
        ledger.feedback.put(record)
    for arm, cost_nano in (("control", 400_000), ("cheaper", 250_000)):
        rows = [_arm_row(arm, number, at, round(cost_nano * rng.uniform(0.8, 1.2))) for number in range(80)]
        ledger.commit([Write((row,)) for row in rows])


def _arm_row(arm: str, number: int, at: int, cost_nano: int) -> Entry:
    return Entry(
        kind="charged",
        request_id=f"{first_id(at + number)}{arm[:2].encode().hex()}{number:013x}",
        attempt_no=1,
        ts=at + number,
        backend="groq",
        provider="generic",
        model="gpt-oss-20b",
        decision="overflow",
        status="ok",
        amount_nano=cost_nano,
        experiment=f"price/{arm}/{number:0{UNIT_DIGITS}x}",
        took_ms=700 + number,
    )


def _key(router: Router) -> str:
    spec = KeySpec("ann", role="admin", may_route=True)
    return KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0).token


async def _ask(router: Router, engine: FakeEngine, key: str) -> None:
    """Send requests of several kinds: local ones, unsure ones, pinned ones, and one that is refused."""
    headers = {"authorization": f"Bearer {key}"}
    for number in range(24):
        engine.logprobs = (-2.0,) * 4 if number % 8 == 5 else (-0.05,) * 4
        model = "openai/gpt-4.1" if number % 6 == 3 else "auto"
        await router.chat({"model": model, "stream": number % 2 == 0, "max_tokens": 40}, **headers)
    await router.chat({"model": "nothing-like-this"}, **headers)


def _review(number: int, now_ms: int) -> ReviewRecord:
    """Return a document that nobody was sure of."""
    text = "Patient 4711, right eye\nAL: 23.40 mm\nK1: 43.25 D\nK2: 44.10 D\n"
    values = {"id": "4711", "AL": 23.4, "K1": 43.25}
    fields = {
        f"/{name}": {"value": value, "confidence": 0.62 if name == "AL" else 0.97, "why": "", "place": place}
        for (name, value), place in zip(
            values.items(),
            ({"start": 8, "end": 12}, {"start": 28, "end": 33}, {"start": 41, "end": 46}),
            strict=True,
        )
    }
    schema = {"type": "object", "properties": {"id": {"type": "string"}, "AL": {"type": "number"}}}
    content = {"text": text, "schema": schema, "values": values, "fields": fields, "steps": []}
    return ReviewRecord(
        id=f"rev_{number:028x}",
        request_id=f"{first_id(now_ms)}{number:017x}",
        created_ms=now_ms + number,
        schema_name="biometry",
        step="local",
        backend="local",
        model="m",
        confidence=0.62,
        why="local: 0.620 < 0.9; parser: no layout is known",
        content=json.dumps(content),
    )


PLACES = (Place("now", "/"), Place("sign-in", "/sign-in"))


def places(scene: Scene) -> tuple[Place, ...]:
    """Return all pages."""
    request = scene.router.runtime.services.records.recent(3)[-1]
    return (
        *PLACES,
        Place("money", scene.money, ("details.more summary",)),
        Place("quality", f"/quality?from={scene.first}&to={scene.last}"),
        Place("experiments", "/experiments"),
        Place("what-if", "/what-if"),
        Place("what-if-replay", "/what-if?ttft_ms=800&order=cloud&replay=1", ("details.more summary",)),
        Place("fleet", "/fleet?since=4w"),
        Place("requests", "/requests?ended=ok"),
        Place("request", f"/requests/{request.facts.request_id}"),
        Place("old-request", f"/requests/{scene.old_id}"),
        Place("my-usage", "/my-usage"),
        Place("keys", "/keys"),
        Place("setup", "/setup", ("details.more summary",)),
        Place("checkup", "/setup", ("button[value=check]",)),
        Place("reviews", "/reviews"),
        Place("review", f"/reviews/rev_{0:028x}"),
    )


def stories(key: str) -> tuple[Story, ...]:
    """Return what somebody with a viewer's or administrator's key does."""
    return (
        Story(
            "signs in, looks around by keyboard, and signs out",
            (
                ("goto", "/money"),
                ("url", "/sign-in"),
                ("fill", "#key", "sk-spill-000000000000-wrong"),
                ("press", "Enter"),
                ("text", "[role=alert]", "not valid"),
                ("fill", "#key", key),
                ("press", "Enter"),
                ("url", "/money"),
                ("press", "Tab"),
                ("focused", "Skip to the page"),
                ("click", ".windows a:has-text('Last 7 days')"),
                ("url", "/money?window=7d"),
                ("click", ".top nav a:has-text('Now')"),
                ("text", "[data-live=on]", "live"),
                ("fetched", "/now.json"),
                ("fetched", "/money.json?window=7d"),
                ("click", ".top nav a:has-text('What if')"),
                ("fill", "#price", "0.50"),
                ("press", "Enter"),
                ("text", "h1", "is cheapest"),
                ("fetched", "/what-if.json?volume=1k/day&price=2"),
                ("click", "button:has-text('Replay')"),
                ("text", "h1", "As configured, the replay answers"),
                ("fetched", "/what-if/replay.json?threshold=0.9"),
                ("click", ".top nav a:has-text('Quality')"),
                ("text", "h1", "no calibration is in use"),
                ("fetched", "/quality.json?window=7d"),
                ("click", ".top nav a:has-text('Experiments')"),
                ("text", "h1", "the arm cheaper differs"),
                ("text", ".panel", "cheaper costs"),
                ("fetched", "/experiments.json?since=4w"),
                ("click", ".top nav a:has-text('Fleet')"),
                ("text", "h1", "There should be"),
                ("fetched", "/fleet.json?since=7d"),
                ("click", ".top nav a:has-text('Requests')"),
                ("select", "#decision", "escalated"),
                ("click", "main form button"),
                ("url", "/requests?key=&decision=escalated"),
                ("click", "tbody a >> nth=0"),
                ("text", "h1", "was not sure enough"),
                ("text", ".story", "Attempt 2"),
                ("click", ".top nav a:has-text('Keys')"),
                ("fill", "#name", "new-service"),
                ("fill", "#budget", "5/day"),
                ("click", "main button.main"),
                ("text", "[role=status]", "sk-spill-"),
                ("text", "tbody", "new-service"),
                ("click", "button[aria-label='Revoke new-service']"),
                ("text", "details summary", "1 revoked"),
                ("click", ".top nav a:has-text('Reviews')"),
                ("click", "tbody a >> nth=0"),
                ("text", "mark", "23.40"),
                ("press", "a"),
                ("text", "h1", "Is this what the document says?"),
                ("fill", "input[name='value:AL']", "23.41"),
                ("click", "button[data-key=c]"),
                ("text", "h1", "Is this what the document says?"),
                ("press", "d"),
                ("text", "h1", "No document waits for a person."),
                ("click", ".top nav a:has-text('Setup')"),
                ("text", "pre", "backends"),
                ("click", "main button:has-text('Check now')"),
                ("text", "h1", "backends answered"),
                ("click", "main button:has-text('Reload')"),
                ("text", "h1", "was reloaded"),
                ("click", ".who button"),
                ("url", "/sign-in"),
            ),
        ),
    )
