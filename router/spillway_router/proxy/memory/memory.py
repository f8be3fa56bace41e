"""What the router remembers between requests: bounded, in this process only, and gone with it."""

from __future__ import annotations

from dataclasses import field

from spillway_router.core.frozen import fast_frozen
from spillway_router.proxy.client.client import SentReply
from spillway_router.proxy.memory.failing_bodies import FailingBodies
from spillway_router.proxy.memory.hedges import Hedges
from spillway_router.proxy.memory.idempotency import INFERENCE, IdempotencyKeys
from spillway_router.proxy.memory.output_habits import OutputHabits
from spillway_router.proxy.memory.refused_additions import RefusedAdditions
from spillway_router.proxy.memory.retained import RetainedRequests
from spillway_router.proxy.memory.sessions import Sessions


def _inference_keys() -> IdempotencyKeys[SentReply]:
    return IdempotencyKeys(INFERENCE)


@fast_frozen(frozen=True, slots=True)
class Memory:
    """The memory of the inference routes. `idempotency` stores replies only while `retained` is enabled."""

    sessions: Sessions
    retained: RetainedRequests = field(default_factory=RetainedRequests)
    refused_additions: RefusedAdditions = field(default_factory=RefusedAdditions)
    failing_bodies: FailingBodies = field(default_factory=FailingBodies)
    hedges: Hedges = field(default_factory=Hedges)
    output_habits: OutputHabits = field(default_factory=OutputHabits)
    idempotency: IdempotencyKeys[SentReply] = field(default_factory=_inference_keys)
