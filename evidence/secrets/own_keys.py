"""A user's own key at a provider that repeats it. The provider is a stand-in, so the router runs in this process."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import replace
from pathlib import Path

from evidence.secrets import repeating
from evidence.secrets.canaries import Written
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.runtime.logs import LogFormatter
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import local, routing, settings

NAME = "own key of a user"


def own_keys(written: Written, folder: Path) -> None:
    """Send requests with an own key, in every case of the upstream, and search all that is left of them."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LogFormatter())
    logger = logging.getLogger()
    level, propagated = logger.level, logger.handlers[:]
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG)
    try:
        asyncio.run(_ask(written, folder))
    finally:
        logger.handlers = propagated
        logger.setLevel(level)
    written.add("log of a router that was given own keys", text.getvalue())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            written.add(f"own keys: file {path.name}", path.read_bytes())


async def _ask(written: Written, folder: Path) -> None:
    providers = load_catalogue()
    headers = {"x_spillway_provider": "groq", "x_spillway_provider_key": written.secrets[NAME]}
    async with FaultUpstream() as engine, FaultUpstream() as groq:
        engine.choose = groq.choose = repeating.answer
        catalogue = {**providers, "groq": replace(providers["groq"], base_url=groq.url)}
        limits = "limits: {stall_s: 1.5, first_event_s: 8, answer_s: 8}\n"
        async with routing(settings(local(engine), more=limits), folder, catalogue=catalogue) as router:
            for case in repeating.CASES:
                stream = case in repeating.STREAMED
                message = {"role": "user", "content": f"say case-{case}"}
                body = {"model": "openai/gpt-oss-20b", "messages": [message], "stream": stream}
                before = len(groq.seen)
                reply = await router.post(body, **headers)
                written.happened(f"own key called {case}", len(groq.seen) - before)
                head = str(reply.headers.multi_items())
                written.add(f"reply to an own key in case {case}", head + ("" if case == "names" else reply.text))
                record = await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")
                written.add(f"record of an own key in case {case}", record.text)
            for page in ("/metrics", "/ready", "/v1/usage"):
                written.add(f"page {page} after own keys", (await router.client.get(page)).text)
