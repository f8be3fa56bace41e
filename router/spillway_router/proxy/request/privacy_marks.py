"""The privacy marks that clients write elsewhere than in the header: in the metadata and tags of a body and of what its
prompt is made of, and in members whose names are nearly marks.

A mark that is malformed or misspelt means private: ignoring it could send content where it must not go.

This module is not compiled. What it does grows with a body, and compiled code keeps the interpreter's lock until it
returns: in its thread (large_body.in_thread) a body of 1 MB with many names stopped the event loop for 0.4 s.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Literal

import orjson

OPEN_MARKS = frozenset({"any", "public", "false"})
"""What a privacy mark says for content that may leave."""
_NEAR_PRIVACY = 0.8
PRIVACY_NAMES = frozenset(
    {"private", "privat", "isprivate", "privacymode", "privacylevel", "localonly"}
    | {"xspillwayprivacy", "spillwayprivacy", "xprivacy"}
)
_PRIVACY_LETTERS = frozenset("privacy")
_LEAST_COMMON = 5
"""Letters of `privacy` that a name of five letters or more has which is near it."""
_CONTAINERS = frozenset(
    {"extra_body", "extra_headers", "extra_query", "headers", "default_headers"}
    | {"spillway", "x-spillway", "litellm_metadata"}
    | {"extra", "options", "model_kwargs", "additional_kwargs", "providerOptions", "provider_options"}
)
"""Members with which SDKs and proxies are told to add fields and headers, if a client sends them as they are."""
_MOST_INNER_JSON = 4096
"""Characters of a member's text that are read as JSON: OpenAI's metadata hold texts only."""
_PROMPT_PARTS = ("messages", "input", "system")
"""Fields that may be lists of messages, items or parts, each with members of its own."""
_USUAL_IN_PROMPT = frozenset(
    {"role", "content", "type", "text", "name", "id", "status", "tool_calls", "tool_call_id", "function_call"}
    | {"image_url", "input_audio", "file", "source", "cache_control", "call_id", "output", "arguments", "refusal"}
)
"""Members of messages, items and parts that are content, or whose names need no closer look."""
_USUAL = frozenset(
    {"model", "messages", "stream", "metadata", "max_tokens", "temperature", "tools", "tool_choice", "input", "prompt"}
    | {"system", "user", "stop", "top_p", "stream_options", "max_completion_tokens", "response_format", "n", "seed"}
)
"""Fields of a body whose names need no closer look."""
_TAG_NAMES = frozenset({"tag", "tags", "label", "labels", "requesttags"})
_BETWEEN_TAGS = re.compile(r"[,;|]")
_WITHIN_TAG = re.compile(r"[:=/.\[\]]+")
_PAIR = 2
_MOST_TAGS = 10_000
"""Tags of one member, and pieces of one tag, that are looked at. More than that is malformed."""
_LONGEST_KEPT_NAME = 32
"""Characters of a name whose kind is remembered."""
_NameKind = Literal["other", "tags", "privacy"]


def privacy_mark(body: Mapping[str, object]) -> bool:
    """Return whether a body marks itself as private: in `metadata.privacy`, or in a member that is nearly that, its own
    or one of its prompt's messages, items and parts.

    A malformed mark means private, and so do metadata that are no object.
    """
    metadata = body.get("metadata")
    if metadata is not None and (not isinstance(metadata, dict) or _marks(metadata, exact="privacy")):
        return True
    if not body.keys() <= _USUAL and _is_marked_beside_prompt(body):
        return True
    for name in _PROMPT_PARTS:
        parts = body.get(name)
        if isinstance(parts, list) and _is_marked_prompt(parts):
            return True
    return False


def _is_marked_beside_prompt(body: Mapping[str, object]) -> bool:
    for name in body:
        if name not in _USUAL and _is_marking_member(name, body[name]):
            return True
    for name in body.keys() & _CONTAINERS:
        inner = body[name]
        if isinstance(inner, dict):
            if _marks(inner, exact="x-spillway-privacy") or privacy_mark(inner):
                return True
        elif _marks_within(inner, pairs=True):
            return True
    return False


def marking_text(name: str, text: str) -> bool:
    """Return whether a member that came as text, as those of a query and of headers do, is a privacy mark."""
    if any(is_privacy_name(part) for part in _WITHIN_TAG.split(name)):
        return True
    return _is_marking_member(name, text) or (_may_hold_members(text) and _marks_within(text))


def _is_marked_prompt(parts: list[object]) -> bool:
    for part in parts:
        if not isinstance(part, dict):
            continue
        if not part.keys() <= _USUAL_IN_PROMPT and _is_marked_part(part):
            return True
        content = part.get("content")
        if isinstance(content, list) and _is_marked_prompt(content):
            return True
    return False


def _is_marked_part(part: Mapping[str, object]) -> bool:
    for name, value in part.items():
        if name in _USUAL_IN_PROMPT:
            continue
        if _is_marking_member(name, value):
            return True
        if (name == "metadata" or name in _CONTAINERS) and _marks_within(value, pairs=True):
            return True
    return False


def _is_marking_member(name: str, value: object) -> bool:
    kind = _name_kind(name) if len(name) <= _LONGEST_KEPT_NAME else _new_name_kind(name)
    if kind == "other":
        return False
    return _has_marking_tag(value) if kind == "tags" else not _is_open(value)


def _new_name_kind(name: str) -> _NameKind:
    if _is_tags_name(name):
        return "tags"
    return "privacy" if is_privacy_name(name) else "other"


_name_kind = functools.lru_cache(maxsize=1024)(_new_name_kind)
"""Clients use the same few names in every request and in every part of one."""


def _marks(members: Mapping[str, object], exact: str) -> bool:
    inner: list[object] = []
    for name, value in members.items():
        if name == exact:
            # Only a word can say that content may leave.
            if not isinstance(value, str) or not _is_open(value):
                return True
        elif _is_marking_member(name, value):
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
                if _is_marking_member(name, inner):
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
    return isinstance(name, str) and _is_marking_member(name, value)


def _is_tags_name(name: str) -> bool:
    return len(name) <= 16 and _letters(name).removeprefix("x") in _TAG_NAMES


def _has_marking_tag(tags: object) -> bool:
    """Return whether one of these tags is a privacy mark: `private`, `privacy:local-only`, an object with that as its
    name and value, or a text that lists such."""
    nodes = [tags]
    looked_at = 0
    while nodes:
        node = nodes.pop()
        looked_at += 1
        if looked_at > _MOST_TAGS:
            return True
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            if _marks_within(node) or _is_marking_tag(":".join([v for v in node.values() if isinstance(v, str)])):
                return True
        elif isinstance(node, str):
            inner = _inner_json(node) if _may_hold_members(node) else None
            if inner is not None:
                nodes.append(inner)
            else:
                listed = _BETWEEN_TAGS.split(node, maxsplit=_MOST_TAGS)
                looked_at += len(listed)
                if looked_at > _MOST_TAGS or any(_is_marking_tag(tag) for tag in listed):
                    return True
    return False


def _is_marking_tag(tag: str) -> bool:
    pieces = _WITHIN_TAG.split(tag, maxsplit=_MOST_TAGS)
    if len(pieces) > _MOST_TAGS:
        return True
    for index, piece in enumerate(pieces):
        if is_privacy_name(piece):
            return not (index + 1 < len(pieces) and _is_open(pieces[index + 1]))
    return False


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


def _is_open(value: object) -> bool:
    return value is False or value is None or (isinstance(value, str) and value.strip().lower() in OPEN_MARKS)


def _letters(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return "".join(c for c in name.lower() if c.isalpha())


def is_privacy_name(name: str) -> bool:
    """Return whether a member with this name is meant to be a privacy mark."""
    letters = _letters(name)
    if letters in PRIVACY_NAMES:
        return True
    if not 5 <= len(letters) <= 9 or len(_PRIVACY_LETTERS.intersection(letters)) < _LEAST_COMMON:
        return False
    return SequenceMatcher(None, letters, "privacy").ratio() > _NEAR_PRIVACY
