"""The names of the request hints. A misspelt one is refused, as ignoring it could send content where it must not go."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from urllib.parse import unquote_to_bytes

import orjson

from spillway_router.core.routing.model import Refusal
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
    {"private", "privat", "isprivate", "privacymode", "privacylevel", "localonly"}
    | {"xspillwayprivacy", "spillwayprivacy", "xprivacy"}
)
_PRIVACY_HEADERS = _PRIVACY_NAMES | {"privacy"}
_PRIVACY_LETTERS = frozenset("privacy")
_LEAST_COMMON = 5
"""Letters of `privacy` that a name of five letters or more has which is near it."""
_CONTAINERS = (
    *("extra_body", "extra_headers", "extra_query", "headers", "default_headers"),
    *("spillway", "x-spillway", "litellm_metadata"),
)
"""Members with which SDKs and proxies are told to add fields and headers, if a client sends them as they are."""
_MOST_INNER_JSON = 4096
"""Characters of a member's text that are read as JSON: OpenAI's metadata hold texts only."""


def check_hint_names(names: Iterable[str]) -> None:
    """Raise RefusedError for a header that is no hint of ours but begins as one, or nearly so."""
    for name in names:
        if name not in HINTS and _is_meant_for_us(name):
            raise _unknown(name)


def query_flaw(query: bytes) -> Refusal | None:
    """Return a 400 for a hint in the query of a target, where nothing reads it."""
    plain = unquote_to_bytes(query).lower().replace(b"_", b"-")
    if b"x-spillway" not in plain and b"spillway-" not in plain:
        return None
    message = "Send the hints of Spillway as headers: the query of the address is not read."
    return Refusal(400, "invalid_request", message, "query")


def check_trailer(name: str) -> None:
    """Raise RefusedError for a hint after the body, when it is too late for it."""
    if _is_meant_for_us(name):
        raise bad_request("Send the hints of Spillway before the body: its trailers are not read.", "trailer")


def _is_meant_for_us(name: str) -> bool:
    plain = name.replace("_", "-")
    if "priva" in plain and ("spill" in plain or "".join(filter(str.isalpha, plain)) in _PRIVACY_HEADERS):
        return True
    head = plain[: len(PREFIX)]
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
        if inner is None:
            continue
        if isinstance(inner, dict):
            if _marks(inner, exact="x-spillway-privacy") or privacy_mark(inner):
                return True
        elif _marks_within(inner, pairs=True):
            return True
    return False


def _marks(members: Mapping[str, object], exact: str) -> bool:
    inner: list[object] = []
    for name, value in members.items():
        if name == exact:
            # Only a word can say that content may leave.
            if not isinstance(value, str) or not _is_open(value):
                return True
        elif _is_privacy_name(name) and not _is_open(value):
            return True
        elif _may_hold_members(value):
            inner.append(value)
    return bool(inner) and _marks_within(inner)


def _marks_within(value: object, *, pairs: bool = False) -> bool:
    """Return whether members further down are marks: of objects, in lists or as JSON in a text. `pairs`: lists of a
    name and a value, too, in which form headers can be given."""
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            node = _inner_json(node)
        if isinstance(node, dict):
            for name, inner in node.items():
                if _is_privacy_name(name) and not _is_open(inner):
                    return True
                if _may_hold_members(inner):
                    nodes.append(inner)
        elif isinstance(node, list):
            if pairs and _is_marking_pair(node):
                return True
            nodes += [inner for inner in node if _may_hold_members(inner)]
    return False


def _is_marking_pair(node: list[object]) -> bool:
    if len(node) != _PAIR:
        return False
    name, value = node
    return isinstance(name, str) and _is_privacy_name(name) and not _is_open(value)


_PAIR = 2


def _may_hold_members(value: object) -> bool:
    return isinstance(value, (dict, list)) or (isinstance(value, str) and value.lstrip()[:1] in ("{", "["))


def _inner_json(text: str) -> object:
    if len(text) > _MOST_INNER_JSON:
        return None
    try:
        parsed: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return parsed


_USUAL = frozenset(
    {"model", "messages", "stream", "metadata", "max_tokens", "temperature", "tools", "tool_choice", "input", "prompt"}
    | {"system", "user", "stop", "top_p", "stream_options", "max_completion_tokens", "response_format", "n", "seed"}
)
"""Fields whose names need no closer look."""


def _is_open(value: object) -> bool:
    return value is False or value is None or (isinstance(value, str) and value.strip().lower() in OPEN_MARKS)


def _is_privacy_name(name: str) -> bool:
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    letters = "".join(c for c in name.lower() if c.isalpha())
    if letters in _PRIVACY_NAMES:
        return True
    if not 5 <= len(letters) <= 9 or len(_PRIVACY_LETTERS.intersection(letters)) < _LEAST_COMMON:
        return False
    return SequenceMatcher(None, letters, "privacy").ratio() > _NEAR_PRIVACY
