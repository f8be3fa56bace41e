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
from spillway_router.proxy.request.failed_logins import FailedLogin, FailedLogins, FailureReason
from spillway_router.proxy.request.key_rates import KeyRates
from spillway_router.proxy.request.keyless import foreign_trace
from spillway_router.proxy.request.verdicts import Verdicts

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


def _no_key(_key_id: str, _monotonic_s: float) -> KeyRecord | None:
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
    valid: Callable[[str, float], KeyRecord | None] = _no_key
    """Look a key up by its id: for a request that was admitted before."""
    rates: KeyRates = field(default_factory=KeyRates)
    failures: FailedLogins = field(default_factory=FailedLogins)
    verdicts: Verdicts = field(default_factory=Verdicts)
    """Counts what is refused to callers that are known."""
    failures_per_minute: int = 0
    """Failed logins of one address that are answered with a 401; further ones get a 429. 0: any number."""

    def permitted(
        self, headers: Mapping[str, str], monotonic_s: float, host: str, roles: frozenset[str]
    ) -> Caller | Refusal:
        """Return the caller if its role is one of `roles`; otherwise a 401, 403 or 429. `host` is the peer's address.

        A missing or invalid key is noted as a failed login.
        """
        caller = self.caller(headers, monotonic_s)
        refusal = caller if isinstance(caller, Refusal) else self.admit(caller, roles)
        if refusal is None:
            return caller
        if isinstance(caller, Caller) and caller.key_id:  # without a key it is a failed login
            self.verdicts.refused(caller.key_id, refusal)
        return self._noted(refusal, headers, monotonic_s, host) if refusal.status == 401 else refusal

    def recognises(self, headers: Mapping[str, str], monotonic_s: float, host: str) -> bool:
        """Return whether the request is one of a known caller, where others get an answer too. That no key was sent is
        no failed login there, but that a wrong one was sent is."""
        caller = self.caller(headers, monotonic_s)
        if isinstance(caller, Caller):
            return True
        if caller.status == 401 and self._failure_reason(headers) == "invalid":
            self._noted(caller, headers, monotonic_s, host)
        return False

    def _noted(self, refusal: Refusal, headers: Mapping[str, str], monotonic_s: float, host: str) -> Refusal:
        """Note a failed login, and return its answer."""
        failure = FailedLogin(self._failure_reason(headers), _token(headers), host, refusal)
        return self.failures.answer(failure, monotonic_s, self.failures_per_minute)

    def _failure_reason(self, headers: Mapping[str, str]) -> FailureReason:
        """Return why a request got a 401."""
        token = _token(headers)
        if token and (self.required or token.startswith("sk-spill-")):
            return "invalid"
        return "missing" if self.required or not foreign_trace(headers, self.origins) else "foreign"

    def caller(self, headers: Mapping[str, str], monotonic_s: float) -> Caller | Refusal:
        """Return the caller, a 401, or the 429 of a key that asks too often.

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
                        refusal = _too_often(rules.per_minute, wait_s)
                        self.verdicts.refused(record.id, refusal)
                        return refusal
                return _caller_of(record, rules)
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

    def renewed(self, caller: Caller, monotonic_s: float) -> Caller | None:
        """Return a caller who was admitted before with what its key may do now; None if the key is valid no more."""
        if not caller.key_id:
            return caller
        record = self.valid(caller.key_id, monotonic_s)
        return None if record is None else _caller_of(record, self.rules(record.id))

    def scraper(self, headers: Mapping[str, str], monotonic_s: float, host: str) -> Refusal | None:
        """Return None for whoever may read metrics: with the scrape token, or by role."""
        token = _token(headers).encode("utf-8", "surrogatepass")
        if self.scrape_token and hmac.compare_digest(token, self.scrape_token.encode()):
            return None
        caller = self.permitted(headers, monotonic_s, host, USAGE_ROLES)
        return caller if isinstance(caller, Refusal) else None

    def admit(self, caller: Caller, roles: frozenset[str]) -> Refusal | None:
        """Return a 403 unless the caller's role is one of `roles`; a 401 for a caller without a key."""
        if caller.role in roles:
            return None
        needed = " or ".join(sorted(roles - {KEYLESS}))
        if caller.role == KEYLESS:
            message = f"This needs a key with the role {needed}, also where other requests need none."
            return _unauthorized(message, f" --role {'admin' if 'admin' in roles else needed}")
        return Refusal(403, "permission_denied", f"This key has the role {caller.role}; {needed} is needed.")


def _caller_of(record: KeyRecord, rules: KeyRules | None) -> Caller:
    return Caller(
        key_id=record.id,
        role=record.role,
        tier=record.tier,
        may_route=record.may_route,
        local_only=record.privacy == "local-only",
        rules=rules,
    )


def _token(headers: Mapping[str, str]) -> str:
    # authorization comes last, as a load balancer in front of the router may use it itself (RunPod's does). An empty
    # header counts as not sent: Anthropic's SDKs send one beside a bearer token. api-key is Azure's name.
    if "x-api-key" in headers or "api-key" in headers:
        for name in ("x-api-key", "api-key"):
            api_key = headers.get(name)
            if api_key is not None and (api_key := api_key.strip()):
                return api_key
    authorization = headers.get("authorization", "")
    if authorization.startswith("Bearer "):
        return authorization[7:].strip()
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def sends_key(headers: Mapping[str, str]) -> bool:
    """Return whether a request sends some text as its key."""
    return bool(_token(headers))


def _too_often(per_minute: int, wait_s: float) -> Refusal:
    message = f"This key may send {per_minute} requests per minute. Wait {wait_s:.1f} s."
    return Refusal(429, "rate_limited", message, retry_after_s=max(1.0, wait_s))


def _unauthorized(message: str, options: str = "") -> Refusal:
    return Refusal(401, "invalid_api_key", f"{message} Create one with `spillway keys create NAME{options}`.")
