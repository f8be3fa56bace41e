"""The names of the request hints. A misspelt one is refused, as ignoring it could send content where it must not go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches

from spillway_router.proxy.request.errors import RefusedError, bad_request

HINTS = (
    "x-spillway-better-than",
    "x-spillway-cache",
    "x-spillway-max-cost-usd",
    "x-spillway-min-confidence",
    "x-spillway-privacy",
    "x-spillway-probe",
    "x-spillway-provider",
    "x-spillway-provider-key",
    "x-spillway-route",
    "x-spillway-slo-ttft-ms",
    "x-spillway-usage-cost",
)
"""All of them. The probe is that of a router in front of this one, which asks what it can do."""
PREFIX = "x-spillway-"
OPEN_MARKS = frozenset({"any", "public", "false"})
"""What a privacy mark says for content that may leave."""
_NEAR_PREFIX = 0.8
_NEAR_PRIVACY = 0.8
_PRIVACY_NAMES = frozenset(
    {"private", "privacymode", "privacylevel", "xspillwayprivacy", "spillwayprivacy", "localonly"}
)
_CONTAINERS = ("extra_body", "extra_headers", "headers")
"""Members with which SDKs are told to add fields and headers, if a client sends them as they are."""


def check_hint_names(names: Iterable[str]) -> None:
    """Raise RefusedError for a header that is no hint of ours but begins as one, or nearly so."""
    for name in names:
        if name not in HINTS and _is_meant_for_us(name):
            raise _unknown(name)


def _is_meant_for_us(name: str) -> bool:
    head = name.replace("_", "-")[: len(PREFIX)]
    return head.startswith(("x-spillway", "spillway-")) or SequenceMatcher(None, head, PREFIX).ratio() > _NEAR_PREFIX


def _unknown(name: str) -> RefusedError:
    near = get_close_matches(name.replace("_", "-"), HINTS, n=1, cutoff=0.5)
    advice = f"Did you mean {near[0]}?" if near else f"The hints are {', '.join(HINTS)}."
    shown = "".join(c for c in name[:64] if c.isascii() and c.isprintable())
    return bad_request(f"Unknown header {shown}. {advice}", shown)


def privacy_mark(body: Mapping[str, object]) -> bool:
    """Return whether a body marks itself as private: in `metadata.privacy`, or in a member that is nearly that.

    A malformed mark means private, and so do metadata that are no object.
    """
    metadata = body.get("metadata")
    if metadata is not None and (not isinstance(metadata, dict) or _marks(metadata, exact="privacy")):
        return True
    for name in body:
        if name not in _USUAL and _is_privacy_name(name) and not _is_open(body[name]):
            return True
    for name in _CONTAINERS:
        inner = body.get(name)
        if isinstance(inner, dict) and (_marks(inner, exact="x-spillway-privacy") or privacy_mark(inner)):
            return True
    return False


def _marks(members: Mapping[str, object], exact: str) -> bool:
    for name, value in members.items():
        if name == exact:
            # Only a word can say that content may leave.
            if not isinstance(value, str) or not _is_open(value):
                return True
        elif _is_privacy_name(name) and not _is_open(value):
            return True
    return False


_USUAL = frozenset(
    {"model", "messages", "stream", "metadata", "max_tokens", "temperature", "tools", "tool_choice", "input", "prompt"}
    | {"system", "user", "stop", "top_p", "stream_options", "max_completion_tokens", "response_format", "n", "seed"}
)
"""Fields whose names need no closer look."""


def _is_open(value: object) -> bool:
    return value is False or value is None or (isinstance(value, str) and value.strip().lower() in OPEN_MARKS)


def _is_privacy_name(name: str) -> bool:
    letters = "".join(c for c in name.lower() if c.isalpha())
    if letters in _PRIVACY_NAMES:
        return True
    return 5 <= len(letters) <= 9 and SequenceMatcher(None, letters, "privacy").ratio() > _NEAR_PRIVACY
