"""`idempotency-key` around an exchange: a request that is sent twice is worked on, and paid, once.

A key that comes again with the same body, while its request is in progress or after it was answered, is a 409 that
names that request. Where `retention` is on, a whole answer that is not private is stored with its key, and repeated
instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.client.client import Client, SentReply
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.idempotency import HEADER, CallerKey, KeyUse, conflict, key_flaw
from spillway_router.proxy.request.body_digest import body_digest


async def answer_once(services: Services, key_id: str, client: Client, answer: Callable[[], Awaitable[None]]) -> None:
    """Run `answer` unless the same request was answered before, or is in progress."""
    sent_key = client.headers[HEADER]
    flaw = key_flaw(sent_key)
    if flaw is not None:
        client.refuse(flaw)
        return
    keys = services.memory.idempotency
    key: CallerKey = (key_id, f"{client.endpoint} {sent_key}")
    digest = await body_digest(client.body)
    lookup = keys.begin(key, digest, client.request_id, services.clock())
    if isinstance(lookup, Refusal):
        client.refuse(lookup)
        return
    if lookup.repeated:
        _repeat(client, lookup.use)
        return
    client.copy_reply = services.memory.retained.enabled
    try:
        await answer()
    finally:
        record = services.records.get(client.request_id)
        if record is None or record.status != 200:
            keys.release(key)
        else:
            reply = client.sent_reply if record.facts.privacy.may_leave else None
            keys.finish(key, reply, 0 if reply is None else len(reply[2]), services.clock())


def _repeat(client: Client, use: KeyUse[SentReply]) -> None:
    """Send the stored reply, or a 409 that says why there is none."""
    if use.reply is not None:
        status, headers, body = use.reply
        client.reply(status, [*headers], body)
    elif use.ended_s is None:
        client.refuse(conflict(f"is in progress ({use.request_id}). Wait for its answer."))
    else:
        problem = (
            f"was answered ({use.request_id}), and its answer is not stored. GET /v1/requests/{use.request_id} shows "
            "the outcome; send a new key to ask again, or switch `retention` on to have answers repeated."
        )
        client.refuse(conflict(problem))
