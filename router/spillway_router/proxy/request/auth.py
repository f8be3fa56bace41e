"""Authenticate a request: resolve its bearer token to a Caller.

Keys are optional only while the router listens on loopback, and then only for programs on the same machine
(keyless.py). Such a caller may ask models and read usage, but never administers the router
(decisions/0027).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import field

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import Caller, KeyRules, Refusal
from spillway_router.ledger.records import KeyRecord
from spillway_router.proxy.request.key_rates import KeyRates
from spillway_router.proxy.request.keyless import foreign_trace

KEYLESS = "keyless"
"""The role of a caller without a key, where none is required. No key has it."""
_KEYLESS_CALLER = Caller(role=KEYLESS)
INFERENCE_ROLES = frozenset({"inference", "admin", KEYLESS})
"""Who may ask models."""
READER_ROLES = INFERENCE_ROLES | {"viewer"}
"""Who may read what is no other caller's secret: models, dry runs, its own requests."""
USAGE_ROLES = frozenset({"viewer", "admin", KEYLESS})
"""Who may read usage and metrics."""
REVIEW_ROLES = frozenset({"viewer", "admin"})
"""Who may list reviews; their documents are for administrators."""
ADMIN_ROLES = frozenset({"admin"})


def _no_rules(_key_id: str) -> KeyRules | None:
    return None


@fast_frozen(frozen=True, slots=True)
class Auth:
    """`verify(token, monotonic_s)` looks a key up; `required` rejects requests without one. Pages of `origins` need no
    key where a program on this machine needs none."""

    verify: Callable[[str, float], KeyRecord | None]
    required: bool
    origins: frozenset[str] = frozenset()
    scrape_token: str = field(default="", repr=False)
    """What Prometheus may send instead of a key to read metrics; "" if nothing is configured."""
    rules: Callable[[str], KeyRules | None] = _no_rules
    """Return what a key that was just verified may use."""
    rates: KeyRates = field(default_factory=KeyRates)

    def caller(self, headers: Mapping[str, str], monotonic_s: float) -> Caller | Refusal:
        """Return the caller, or a 401.

        A token that is sent must be valid even where none is required, unless it does not look like one of our keys:
        OpenAI clients insist on sending some text.
        """
        token = _token(headers)
        if token:
            record = self.verify(token, monotonic_s)
            if record is not None:
                rules = self.rules(record.id)
                if rules is not None and rules.per_minute:
                    wait_s = self.rates.wait_s(record.id, rules.per_minute, monotonic_s)
                    if wait_s > 0:
                        return _too_often(rules.per_minute, wait_s)
                return Caller(
                    key_id=record.id,
                    role=record.role,
                    tier=record.tier,
                    may_route=record.may_route,
                    local_only=record.privacy == "local-only",
                    rules=rules,
                )
            if self.required or token.startswith("sk-spill-"):
                return _unauthorized("The API key is not valid or was revoked.")
        elif self.required:
            return _unauthorized("No API key was sent. Send 'Authorization: Bearer <key>'.")
        trace = foreign_trace(headers, self.origins)
        if trace:
            return _unauthorized(
                f"Without a key the router answers only programs on its own machine, not this request: {trace}. "
                "Set `keys: {required: true}` behind a proxy, and send 'Authorization: Bearer <key>'."
            )
        return _KEYLESS_CALLER

    def scraper(self, headers: Mapping[str, str], monotonic_s: float) -> Refusal | None:
        """Return None for whoever may read metrics: with the scrape token, or by role."""
        token = _token(headers).encode("utf-8", "surrogatepass")
        if self.scrape_token and hmac.compare_digest(token, self.scrape_token.encode()):
            return None
        caller = self.caller(headers, monotonic_s)
        return caller if isinstance(caller, Refusal) else self.admit(caller, USAGE_ROLES)

    def admit(self, caller: Caller, roles: frozenset[str]) -> Refusal | None:
        """Return a 403 unless the caller's role is one of `roles`; a 401 for a caller without a key."""
        if caller.role in roles:
            return None
        needed = " or ".join(sorted(roles - {KEYLESS}))
        if caller.role == KEYLESS:
            message = f"This needs a key with the role {needed}, also where other requests need none."
            return _unauthorized(message, f" --role {'admin' if 'admin' in roles else needed}")
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


def _too_often(per_minute: int, wait_s: float) -> Refusal:
    message = f"This key may send {per_minute} requests per minute. Wait {wait_s:.1f} s."
    return Refusal(429, "rate_limited", message, retry_after_s=max(1.0, wait_s))


def _unauthorized(message: str, options: str = "") -> Refusal:
    return Refusal(401, "invalid_api_key", f"{message} Create one with: spillway keys create NAME{options}")
