"""Who asks: a bearer token to a Caller. Keys are optional only while the router listens on loopback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.ledger.records import KeyRecord

ANONYMOUS_ADMIN = Caller(role="admin")


@dataclass(frozen=True, slots=True)
class Auth:
    """`verify(token, now)` looks a key up; `required` refuses requests without one."""

    verify: Callable[[str, float], KeyRecord | None]
    required: bool

    def caller(self, headers: Mapping[str, str], now: float) -> Caller | Refusal:
        """The caller, or a 401. A token that is sent must be valid even where none is required, unless no key
        was ever asked for: OpenAI clients insist on sending some text."""
        token = _token(headers)
        if token:
            record = self.verify(token, now)
            if record is not None:
                return Caller(record.id, record.role, record.tier, record.may_route, record.privacy == "local-only")
            if self.required or token.startswith("sk-spill-"):
                return _unauthorized("The API key is not valid or was revoked.")
        elif self.required:
            return _unauthorized("No API key was sent. Send 'Authorization: Bearer <key>'.")
        return ANONYMOUS_ADMIN

    def admit(self, caller: Caller, roles: frozenset[str]) -> Refusal | None:
        """403 unless the caller's role is one of `roles`."""
        if caller.role in roles:
            return None
        wanted = " or ".join(sorted(roles))
        return Refusal(403, "permission_denied", f"This key has the role {caller.role}; {wanted} is needed.")


def _token(headers: Mapping[str, str]) -> str:
    own = headers.get("x-api-key")
    if own is not None:  # first, as a load balancer before us may want `authorization` for itself (RunPod's does)
        return own.strip()
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "invalid_api_key", f"{message} Create one with: spillway keys create NAME")
