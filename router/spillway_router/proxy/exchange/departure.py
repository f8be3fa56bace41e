"""The second guard of privacy: the verdict on a request is renewed before each of its attempts leaves.

The first guard is the privacy filter, which removes clouds from the candidates when a request is decided on. Minutes
may lie between the decision and an attempt: a request waits for an engine, its answer is escalated, audited or asked
for again. Meanwhile a reload may restrict what leaves or where it goes, its key may be revoked or made private, and
something private may be said in its session. So the pool of every backend refuses a private request unless it is a
local backend's (http_client/pool.py), and what is private is judged here by the configuration, the keys and the
sessions of this moment, on the bytes that would leave.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spillway_router.core.routing.model import PrivacyVerdict, RequestFacts
from spillway_router.http_client.types import Pieces
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.sessions import session_of
from spillway_router.proxy.request.facts import PrivacyRule, content_verdict
from spillway_router.proxy.request.large_body import MANY_PARTS, in_thread, read_body

if TYPE_CHECKING:
    from spillway_router.proxy.exchange.attempt import UpstreamAttempt


async def renew_verdict(attempt: UpstreamAttempt, body: bytes | Pieces) -> None:
    """Judge anew what `attempt` is about to send, and whether its backend is still local."""
    services, facts, config = attempt.services, attempt.hold.facts, attempt.services.config()
    verdict = attempt.privacy
    if config is not attempt.config:
        current = config.backend_routes.get(attempt.backend.name)
        if not attempt.leaves and (current is None or not current.pool.local):
            attempt.leaves = attempt.became_cloud = True
        if verdict.may_leave and attempt.leaves and config.privacy != attempt.config.privacy:
            verdict = await _content_verdict(facts.caller.key_id, bytes(body), config.privacy)
    if verdict.may_leave and attempt.leaves:
        caller = config.auth.renewed(facts.caller, services.clock())
        verdict = _BY_KEY if caller is None or caller.local_only else await _session_verdict(services, facts)
    attempt.privacy = verdict


async def renewed(services: Services, facts: RequestFacts, raw: bytes) -> RequestFacts | None:
    """Return the facts of a request that has waited, with what its key may do and the verdict of this moment; None if
    its key is valid no more. `raw` is its body."""
    caller = services.config().auth.renewed(facts.caller, services.clock())
    if caller is None:
        return None
    facts, verdict = replace(facts, caller=caller), facts.privacy
    if verdict.may_leave and caller.local_only:
        verdict = _BY_KEY
    if verdict.may_leave:
        verdict = await _content_verdict(caller.key_id, raw, services.config().privacy)
    if verdict.may_leave:
        verdict = await _session_verdict(services, facts)
    return facts if verdict.may_leave else replace(facts, privacy=verdict)


_BY_KEY = PrivacyVerdict(False, ("key",))


async def _content_verdict(key_id: str, raw: bytes, rule: PrivacyRule) -> PrivacyVerdict:
    body = await read_body(raw, rule.detectors, rule.recognizer, key_id=key_id)
    return (
        content_verdict(body, rule) if len(raw) <= MANY_PARTS else await in_thread(key_id, content_verdict, body, rule)
    )


async def _session_verdict(services: Services, facts: RequestFacts) -> PrivacyVerdict:
    session = session_of(facts)
    if session is not None and await services.memory.sessions.private.is_private_anywhere(*session):
        return PrivacyVerdict(False, ("session",))
    return facts.privacy
