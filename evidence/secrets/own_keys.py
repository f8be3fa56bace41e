"""A user's own key at a provider that repeats it, sent with a request and stored for it. The provider is a stand-in, so
the router runs in this process."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import replace
from itertools import product
from pathlib import Path

from evidence.secrets import repeating
from evidence.secrets.canaries import Written
from spillway_router.config.secret_keys import SECRET_KEY_VARIABLE
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.runtime.logs import LogFormatter
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, local, routing, settings

NAME = "own key of a user"
STORED = "stored key of a user"
SECRET_KEY = "secret key of the vault"


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
    asked = {"x_spillway_provider": "groq"}
    sent = {**asked, "x_spillway_provider_key": written.secrets[NAME]}
    environment = {SECRET_KEY_VARIABLE: written.secrets[SECRET_KEY]}
    async with FaultUpstream() as engine, FaultUpstream() as groq:
        engine.choose = groq.choose = repeating.answer
        catalogue = {**providers, "groq": replace(providers["groq"], base_url=groq.url)}
        limits = "limits: {stall_s: 1.5, first_event_s: 8, answer_s: 8}\n"
        text = settings(local(engine), more=limits)
        async with routing(text, folder, environment=environment, catalogue=catalogue) as router:
            own = {**asked, **await _stored(written, router)}
            for case, headers in product(repeating.CASES, (sent, own)):
                stream = case in repeating.STREAMED
                message = {"role": "user", "content": f"say case-{case}"}
                body = {"model": "openai/gpt-oss-20b", "messages": [message], "stream": stream}
                before = len(groq.seen)
                reply = await router.post(body, **headers)
                how = "own key" if headers is sent else "stored key"
                written.happened(f"{how} called {case}", len(groq.seen) - before)
                head = str(reply.headers.multi_items())
                written.add(f"reply to an {how} in case {case}", head + ("" if case == "names" else reply.text))
                record = await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}", headers=router.admin)
                written.add(f"record of an {how} in case {case}", record.text)
            for page in ("/metrics", "/ready", "/v1/usage"):
                written.add(f"page {page} after own keys", (await router.client.get(page)).text)


async def _stored(written: Written, router: Router) -> dict[str, str]:
    """Store a provider key for an administrator's API key; return the headers that send that."""
    listed = await router.client.get("/admin/keys", headers=router.admin)
    key_id = listed.json()["keys"][0]["id"]
    path = f"/admin/keys/{key_id}/provider-keys/groq"
    body = {"secret": written.secrets[STORED]}
    stored = await router.client.put(path, json=body, headers=router.admin)
    written.happened("provider key stored", stored.status_code == 200)
    refused = await router.client.put(path, json={**body, "unknown": body["secret"]}, headers=router.admin)
    shown = await router.client.get(f"/admin/keys/{key_id}/provider-keys", headers=router.admin)
    for name, reply in (("stored", stored), ("refused", refused), ("listed", shown)):
        written.add(f"provider key {name}", str(reply.headers.multi_items()) + reply.text)
    return router.admin
