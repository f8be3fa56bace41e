"""`idempotency-key` around an exchange: a request that is sent twice is worked on, and paid, once.

The same key with the same body while the first is in progress, or after it was answered, is a 409 that names the first
request; with another body too. Where `retention` is on, a whole answer that is no private one is kept with its key and
repeated instead. What failed gives its key free: a client that tries again is served. Keys are this process's own:
behind several routers send a client's retries to the same one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.memory import MOST_KEY, Owner

HEADER = "idempotency-key"


async def once(s: Services, key_id: str, client: Client, answer: Callable[[], Awaitable[None]]) -> None:
    """Answer unless that was or is done already."""
    key = client.headers[HEADER]
    if not key or len(key) > MOST_KEY:
        client.refuse(Refusal(400, "invalid_request", f"{HEADER} must have 1 to {MOST_KEY} characters.", HEADER))
        return
    owner: Owner = (key_id, f"{client.endpoint} {key}")
    turn = s.memory.once.begin(owner, client.body, client.request_id, s.clock())
    if isinstance(turn, Refusal):
        client.refuse(turn)
        return
    if turn.reply is not None:
        status, lines, body = turn.reply
        client.whole(status, [*lines], body)
        return
    client.kept = [] if s.memory.retained.on else None
    try:
        await answer()
    finally:
        record = s.records.get(client.request_id)
        answered = record is not None and record.status == 200
        if record is not None and answered and client.kept and record.facts.privacy.may_leave:
            turn.reply = client.kept[0]
        s.memory.once.end(owner, turn, answered=answered, now=s.clock())
