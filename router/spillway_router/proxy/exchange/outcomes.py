"""What failures mean: a broken call as an Outcome, the last Outcome as the error that the client gets."""

from __future__ import annotations

from spillway_router.core.routing.model import Candidate, Outcome, Refusal
from spillway_router.http_client.connection import (
    ConnectError,
    PoolFullError,
    StaleConnectionError,
    StallError,
    TransportError,
)


def transport_outcome(error: TransportError) -> Outcome:
    """What a broken call means. Nothing was sent on a failed connect, so nothing can be billed."""
    if isinstance(error, PoolFullError):
        return Outcome("overloaded", detail=str(error))
    if isinstance(error, StallError):
        return Outcome("timeout", detail=str(error), billed=True)
    stale = isinstance(error, StaleConnectionError)
    return Outcome("failed", detail=str(error), billed=not isinstance(error, ConnectError), stale_connection=stale)


def failure_refusal(candidate: Candidate, outcome: Outcome) -> Refusal:
    """The client's error when this outcome was the last word."""
    name = candidate.backend.name
    detail = f"{name}: {outcome.detail or outcome.kind}"
    if outcome.kind == "rejected":
        status = outcome.status if outcome.status in (400, 404, 409, 413, 422) else 400
        code = "request_too_large" if status == 413 else "invalid_request"
        return Refusal(status, code, f"The backend refused the request. {detail}")
    if outcome.kind == "unserved":
        message = f"No backend of this alias has this endpoint and model. {detail}. Ask another alias or endpoint."
        return Refusal(404, "model_not_found", message, "model")
    if outcome.kind in ("overloaded", "rate_limited"):
        wait = outcome.retry_after_s if outcome.retry_after_s is not None else 1.0
        message = f"Every backend is at its limit. {detail}. Retry after the given time."
        return Refusal(503, "overloaded", message, retry_after_s=wait)
    if outcome.kind == "timeout":
        return Refusal(504, "upstream_timeout", f"The backend did not answer in time. {detail}")
    return Refusal(502, "upstream_error", f"The backend failed. {detail}")
