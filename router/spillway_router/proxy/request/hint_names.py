"""The names of the request hints. A misspelt one is refused, as ignoring it could send content where it must not go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from urllib.parse import parse_qsl, unquote_to_bytes

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.privacy_marks import marking_text

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
_NEAR_PREFIX = 0.8
_NAMES_PRIVACY = re.compile(r"(?:^|[-_])(?:is[-_]?)?(?:privacy|private|privat)(?:[-_]?(?:mode|level))?$")
"""A header of any prefix that is named as a privacy mark is."""
_LABELS = ("tags", "tag", "labels", "metadata")
"""Ends of the names of headers with which proxies take tags and metadata."""


def check_hint_names(headers: Mapping[str, str]) -> None:
    """Raise RefusedError for a header that is no hint of ours but begins as one, or nearly so, and for a mark of
    privacy in a header of tags or metadata."""
    for name in headers:
        if name not in HINTS and _is_meant_for_us(name):
            raise _unknown(name)
        if name.endswith(_LABELS) and marking_text("metadata" if name.endswith("metadata") else "tags", headers[name]):
            raise bad_request(f"The header {_shown(name)} is not read. Send x-spillway-privacy.", _shown(name))


def query_flaw(query: bytes) -> Refusal | None:
    """Return a 400 for a hint in the query of a target, where nothing reads it."""
    plain = unquote_to_bytes(query).lower().replace(b"_", b"-")
    if b"x-spillway" not in plain and b"spillway-" not in plain and not _marks_privacy(query):
        return None
    message = "Send the hints of Spillway as headers: the query of the address is not read."
    return Refusal(400, "invalid_request", message, "query")


def _marks_privacy(query: bytes) -> bool:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    return any(marking_text(name, value) for name, value in pairs)


def check_trailer(name: str) -> None:
    """Raise RefusedError for a hint after the body, when it is too late for it."""
    if _is_meant_for_us(name):
        raise bad_request("Send the hints of Spillway before the body: its trailers are not read.", "trailer")


def _is_meant_for_us(name: str) -> bool:
    plain = name.replace("_", "-")
    if "priva" in plain and ("spill" in plain or _NAMES_PRIVACY.search(plain) is not None):
        return True
    head = plain[: len(PREFIX)]
    return head.startswith(("x-spillway", "spillway-")) or SequenceMatcher(None, head, PREFIX).ratio() > _NEAR_PREFIX


def _unknown(name: str) -> RefusedError:
    near = get_close_matches(name.replace("_", "-"), HINTS, n=1, cutoff=0.5)
    advice = f"Did you mean {near[0]}?" if near else f"The hints are {', '.join(HINTS)}."
    return bad_request(f"Unknown header {_shown(name)}. {advice}", _shown(name))


def _shown(name: str) -> str:
    return "".join(c for c in name[:64] if c.isascii() and c.isprintable())
