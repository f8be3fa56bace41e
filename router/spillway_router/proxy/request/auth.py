"""Authenticate a request: resolve its bearer token to a Caller. Keys are optional only while the router listens on
loopback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.ledger.records import KeyRecord

ANONYMOUS_ADMIN = Caller(role="admin")


@fast_frozen(frozen=True, slots=True)
class Auth:
    """`verify(token, monotonic_s)` looks a key up; `required` rejects requests without one."""

    verify: Callable[[str, float], KeyRecord | None]
    required: bool

    def caller(self, headers: Mapping[str, str], monotonic_s: float) -> Caller | Refusal:
        """Return the caller, or a 401.

        A token that is sent must be valid even where none is required, unless it does not look like one of our keys:
        OpenAI clients insist on sending some text.
        """
        token = _token(headers)
        if token:
            record = self.verify(token, monotonic_s)
            if record is not None:
                return Caller(
                    key_id=record.id,
                    role=record.role,
                    tier=record.tier,
                    may_route=record.may_route,
                    local_only=record.privacy == "local-only",
                )
            if self.required or token.startswith("sk-spill-"):
                return _unauthorized("The API key is not valid or was revoked.")
        elif self.required:
            return _unauthorized("No API key was sent. Send 'Authorization: Bearer <key>'.")
        return ANONYMOUS_ADMIN

    def admit(self, caller: Caller, roles: frozenset[str]) -> Refusal | None:
        """Return a 403 unless the caller's role is one of `roles`."""
        if caller.role in roles:
            return None
        needed = " or ".join(sorted(roles))
        return Refusal(403, "permission_denied", f"This key has the role {caller.role}; {needed} is needed.")


def _token(headers: Mapping[str, str]) -> str:
    # authorization comes last, as a load balancer in front of the router may use it itself (RunPod's does). An empty
    # header counts as not sent: Anthropic's SDKs send one beside a bearer token. api-key is Azure's name.
    for name in ("x-api-key", "api-key"):
        api_key = headers.get(name)
        if api_key is not None and (api_key := api_key.strip()):
            return api_key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "invalid_api_key", f"{message} Create one with: spillway keys create NAME")
