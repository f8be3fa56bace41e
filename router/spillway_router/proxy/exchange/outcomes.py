"""Maps transport errors to outcomes, and the final outcome to the client's error."""

from __future__ import annotations

from spillway_router.core.routing.model import Candidate, Decision, Outcome, Refusal
from spillway_router.http_client.connection import (
    AbandonedError,
    ConnectError,
    OwnLimitError,
    PoolFullError,
    PrivateContentError,
    StaleConnectionError,
    StallError,
    TransportError,
)

REPORTED_ERROR = "the upstream reported an error"
"""What logs and records say of an error that came within an answer."""
PRIVATE = "privacy"
"""The fault of an attempt that was not sent because its content must not leave for its backend."""
OWN_STATUSES = frozenset({400, 404, 409, 413, 422})
"""Statuses of an upstream's refusal that the client gets as they are."""


def transport_outcome(error: TransportError) -> Outcome:
    """The outcome of a call that broke. A call that never got a connection can't be billed."""
    if isinstance(error, OwnLimitError):
        return Outcome("unsent", detail=str(error))
    if isinstance(error, PrivateContentError):
        return Outcome("unserved", detail=str(error), fault=PRIVATE)
    if isinstance(error, PoolFullError):
        return Outcome("overloaded", detail=str(error))
    if isinstance(error, StallError):
        return Outcome("timeout", detail=str(error), billed=True)
    if isinstance(error, AbandonedError):
        return Outcome("failed", detail=f"it left the rotation: {error}", billed=True, left_rotation=True)
    stale = isinstance(error, StaleConnectionError)
    return Outcome("failed", detail=str(error), billed=not isinstance(error, ConnectError), stale_connection=stale)


def failure_refusal(candidate: Candidate, outcome: Outcome, *, final: bool = True) -> Refusal:
    """The client's error if no backend is asked after this outcome. `final`: its own retry would not help."""
    name = candidate.backend.name
    detail = f"{name}: {outcome.said or outcome.detail or outcome.kind}"
    if outcome.kind == "rejected":
        status = outcome.status if outcome.status in OWN_STATUSES else 400
        code = "request_too_large" if status == 413 else "invalid_request"
        return Refusal(status, code, f"The backend refused the request. {detail}", upstream=outcome.error)
    if outcome.fault == PRIVATE:
        message = f"This request is private by now, and no local backend was asked. {detail}."
        return Refusal(503, "local_only_unavailable", message, retry_after_s=5.0)
    if outcome.kind == "unserved" and outcome.fault not in ("", "endpoint"):
        status = outcome.status if outcome.status in OWN_STATUSES else 400
        message = f"No backend of this alias can serve this request as it is. {detail}. Change it or the alias."
        return Refusal(status, "invalid_request", message, upstream=outcome.error)
    if outcome.kind in ("unserved", "withdrawn"):
        message = f"No backend of this alias has this endpoint and model. {detail}. Ask another alias or endpoint."
        return Refusal(404, "model_not_found", message, "model")
    if outcome.kind in ("overloaded", "rate_limited"):
        retry_after_s = outcome.retry_after_s if outcome.retry_after_s is not None else 1.0
        message = f"Every backend is at its limit. {detail}. Retry after the given time."
        return Refusal(503, "overloaded", message, retry_after_s=retry_after_s)
    if outcome.kind == "unsent":
        message = f"The router itself has no descriptor, memory or port left for a call. {detail}"
        return Refusal(503, "overloaded", message, retry_after_s=1.0)
    if outcome.left_rotation:
        message = f"The backend left the rotation while the request waited. {detail}"
        return Refusal(503, "no_backend", message, retry_after_s=5.0)
    if outcome.kind == "timeout":
        return Refusal(504, "upstream_timeout", f"The backend did not answer in time. {detail}")
    return Refusal(502, "upstream_error", f"The backend failed. {detail}", final=final)


def final_refusal(refusal: Refusal | None, decision: Decision) -> Refusal:
    """The client's error when every candidate was asked: `refusal` is that of the last one, None if there was none.

    A private request whose local backends failed is refused as one that only they may answer.
    """
    if refusal is None:
        refusal = Refusal(503, "no_backend", "No backend could be asked.", retry_after_s=5.0)
    kept_local = any(removed.reason == "privacy" for removed in decision.removed)
    if refusal.status < 500 or not kept_local or refusal.code == "local_only_unavailable":
        return refusal
    message = f"No local backend can answer this private request now. {refusal.message}"
    return Refusal(503, "local_only_unavailable", message, retry_after_s=refusal.retry_after_s or 5.0)
