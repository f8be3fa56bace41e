"""The configurations of deploy/examples, each with the real engine: what its first comment says is what happens."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from spillway_router.config import load as config
from spillway_router.config.derived import DerivedConfig
from spillway_router.config.load import Loaded
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, routing
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, generate

if TYPE_CHECKING:
    from tests.conftest import RunningEngine

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
ENGINE = r'(local: true, base_url: )"[^"]*", model: [^}]*}'
CLOUD = r"(provider: (?!vllm)[a-z]+, )"
TODAY = date(2026, 11, 30)
"""Prices grow old, and models are withdrawn."""
CLEAN, STRANGE = generate(HELD_OUT_SEEDS[0]), generate(HELD_OUT_SEEDS[0], "heavy", "oa2000_nl")
"""A document that the demo model reads for sure, and one that it does not."""
HARDER = "Compare these two plans."
HARDEST = "Compare these two plans, weigh their risks and invent a better strategy."
WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "beta"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 100},
    }
)


@dataclass(frozen=True, slots=True)
class Site:
    """A router with one of the examples, and the one stand-in for all of its clouds."""

    router: Router
    clouds: FaultUpstream

    def key(self, tier: str = "") -> dict[str, str]:
        """Return the header with a new key."""
        store = KeyStore(self.router.ledger.keys)
        spec = KeySpec(f"app-{tier}", tier=tier)
        return {
            "authorization": f"Bearer {store.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0).token}"
        }

    async def ask(self, text: str, model: str = "auto", **headers: str) -> httpx.Response:
        """Ask in one message."""
        fields: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 120}
        return await self.router.chat(fields, **headers)


def who(reply: httpx.Response) -> tuple[str, str]:
    """The backend and the decision of an answer."""
    assert reply.status_code == 200, reply.text
    return reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]


def environment() -> Mapping[str, str]:
    """A key for every provider."""
    return {entry.key_variable: "k" for entry in load_catalogue().values() if entry.key_variable}


@asynccontextmanager
async def example(name: str, engine: RunningEngine, **changes: str) -> AsyncIterator[Site]:
    """Run an example as it is, but for the addresses of its engines, the models that they serve, and `changes`."""
    text = (FOLDER / f"{name}.yaml").read_text()
    text = re.sub(
        r'(local: true, base_url: )"[^"]*", model: [^}]*}', rf'\1"{engine.base_url}", model: {engine.model}}}', text
    )
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    providers = load_catalogue()
    async with FaultUpstream(WHOLE) as clouds:
        catalogue = {
            name: entry if entry.local else replace(entry, base_url=clouds.url) for name, entry in providers.items()
        }
        text = re.sub(CLOUD, rf'\1base_url: "{clouds.url}", ', text)
        async with routing(text, environment=environment(), catalogue=catalogue) as router:
            yield Site(router, clouds)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_accepted_without_a_warning(path: Path) -> None:
    text = path.read_text()
    derived = DerivedConfig.of(Loaded(config.parse(text, environment()), None, text, environment()), TODAY)
    assert not derived.assembly.disabled
    assert not derived.assembly.warnings


async def test_coaching(engine: RunningEngine) -> None:
    async with example("coaching", engine, **{'limit_usd: "62.50"': 'limit_usd: "0.0625"'}) as site:
        free, paid = site.key("free"), site.key("paid")
        assert (await site.ask("Hi")).status_code == 401
        assert who(await site.ask(STRANGE.text, **free)) == ("local", "local")
        assert who(await site.ask(HARDEST, **free)) == ("local", "local")
        assert (await site.ask("Hi", "gpt", **free)).status_code == 403
        assert who(await site.ask(CLEAN.text, **paid)) == ("local", "local")
        assert who(await site.ask("Which eye?", **paid)) == ("groq", "escalated")
        assert who(await site.ask(HARDER, **paid)) == ("groq", "routed")
        assert who(await site.ask(HARDEST, **paid)) == ("gpt", "routed")
        own = {"x_spillway_provider": "openai", "x_spillway_provider_key": "sk-own"}
        assert who(await site.ask("Hi", "gpt-6-sol", **own, **paid)) == ("own-openai", "byok")
        answers = [await site.ask(HARDEST, **paid) for _ in range(50)]
        assert [who(one)[0] for one in answers[-2:]] == ["groq", "groq"]
        assert "budget" in answers[-1].headers["x-spillway-reason"]


async def test_quiz(engine: RunningEngine) -> None:
    async with example("quiz", engine) as site:
        assert who(await site.ask("Which eye?", "prefer-local")) == ("local", "local")
        assert who(await site.ask("Which eye?", "prefer-together")) == ("together", "routed")
        assert who(await site.ask("My blood pressure is high.", "prefer-together")) == ("local", "local")
        site.clouds.answer = Answer.json({"error": {"message": "down"}}, 500)
        assert who(await site.ask("Which eye?", "prefer-together"))[0] == "local"


async def test_biometry(engine: RunningEngine) -> None:
    async with example("biometry", engine) as site:
        key = site.key()

        async def read(text: str) -> dict[str, Any]:
            reply = await site.router.post({"text": text, "schema": "biometry"}, "/v1/documents/extract", **key)
            assert reply.status_code == 200, reply.text
            result: dict[str, Any] = reply.json()
            return result

        sure = await read(CLEAN.text)
        assert (sure["status"], sure["step"], sure["values"]) == ("answered", "local", CLEAN.truth)
        unsure = await read(STRANGE.text)
        assert [step["step"] for step in unsure["steps"]] == ["local", "parser", "external"]
        assert unsure["status"] == "review"
        asked = len(site.clouds.seen)
        private = await read(f"confidential\n{STRANGE.text}")
        assert (private["private"], private["status"]) == (True, "review")
        assert len(site.clouds.seen) == asked > 0


async def test_enterprise(engine: RunningEngine) -> None:
    async with example("enterprise", engine) as site:
        key = site.key()
        rows = site.router.rows(await site.ask("Write a python function that adds two numbers.", **key))
        assert "coder" in {row.backend for row in rows}
        assert {row.task for row in rows} == {"code"}
        assert who(await site.ask(CLEAN.text, **key)) == ("general", "local")
        assert who(await site.ask(HARDEST, **key)) == ("premium", "routed")
        seen = len(site.clouds.seen)
        assert who(await site.ask("My salary: is it fair?", "premium-only", **key))[1] == "local"
        assert who(await site.ask("Compare the password policies, weigh and invent a better one.", **key))[1] == "local"
        assert len(site.clouds.seen) == seen


async def test_twin(embedder: RunningEngine) -> None:
    async with example("twin", embedder) as site:
        key, other = site.key(), site.key()
        texts = {"model": "embeddings", "input": ["Which eye?", "The left one."]}
        embedded = await site.router.post(texts, "/v1/embeddings", **key)
        assert who(embedded) == ("embedder", "local")
        assert [len(one["embedding"]) for one in embedded.json()["data"]] == [256, 256]
        assert not site.clouds.seen
        assert who(await site.ask("Which eye?", **key)) == ("cerebras", "routed")
        again = await site.ask("Which eye?", **key)
        assert (who(again)[1], again.headers["x-spillway-cost-usd"]) == ("cache", "0.000000")
        assert who(await site.ask("Which eye?", **other)) == ("cerebras", "routed")
        assert [arrival.json["model"] for arrival in site.clouds.seen] == ["openai/gpt-oss-120b:cerebras"] * 2
        down = Answer.json({"error": {"message": "down"}}, 503)
        site.clouds.choose = lambda arrival: down if arrival.json["model"].endswith(":cerebras") else WHOLE
        assert who(await site.ask("The left one?", **key)) == ("groq", "fallback")
        site.router.runtime.board.health("embedder", "down", "it was stopped")
        seen = len(site.clouds.seen)
        assert (await site.router.post({**texts, "input": "A third."}, "/v1/embeddings", **key)).status_code == 503
        assert len(site.clouds.seen) == seen
