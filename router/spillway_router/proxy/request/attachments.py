"""The pictures, recordings, documents and films in a request. Their base64 is no text of the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.core.routing.pictures import UNKNOWN_SIZE, Medium, Size, expected_media_tokens
from spillway_router.proxy.request.picture_size import size_of_base64

PICTURE_KINDS = ("image_url", "input_image", "image", "computer_screenshot")
_MEDIA: Mapping[str, Medium] = {
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "file": "document",
    "input_file": "document",
    "document": "document",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
}
"""Types of content parts that hold a medium."""
_HOLDERS = ("image_url", "source", "input_audio", "audio", "audio_url", "file", "video", "video_url", "input_video")
"""Members of a part that hold its data or address, as text or as an object."""
_DATA_FIELDS = ("url", "data", "file_data")


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is attached: the sizes of the pictures, the bytes of all base64 in the JSON text, and the tokens that the
    other media are expected to have."""

    pictures: tuple[Size, ...] = ()
    data_bytes: int = 0
    media_tokens: int = 0


NO_ATTACHMENTS = Attachments()


def attachments(content: object, cut: Mapping[str, int]) -> Attachments:
    """Return the attachments anywhere in the messages, including those in tool results.

    `cut` are the strings of a large body that were cut, with their lengths.
    """
    pictures: list[Size] = []
    data_bytes = media_tokens = 0
    nodes: list[object] = [content]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
            continue
        if not isinstance(node, dict):
            continue
        kind = node.get("type")
        medium = _MEDIA.get(kind) if isinstance(kind, str) else None
        if isinstance(kind, str) and kind in PICTURE_KINDS:
            data = _base64(node, cut)
            pictures.append(UNKNOWN_SIZE if data is None else size_of_base64(_payload(data)))
            data_bytes += 0 if data is None else cut.get(data, len(data))
        elif medium is not None and not _is_text(node):
            data = _base64(node, cut)
            length = 0 if data is None else cut.get(data, len(data))
            data_bytes += length
            media_tokens += expected_media_tokens(medium, length * 3 // 4)
        else:
            nodes += (node.get("content"), node.get("output"))
    return Attachments(tuple(pictures), data_bytes, media_tokens) if pictures or media_tokens else NO_ATTACHMENTS


def _is_text(part: Mapping[str, Any]) -> bool:
    """Return whether a document is given as text or as further parts, which are prompt text like any other."""
    source = part.get("source")
    return isinstance(source, dict) and source.get("type") in ("text", "content")


def _base64(part: Mapping[str, Any], cut: Mapping[str, int]) -> str | None:
    """Return the base64 of a part, perhaps as a data URL; None if the part names an address or an id."""
    for data, is_address in _strings(part):
        if not data.isascii() and data not in cut:
            continue
        if data.startswith("data:") or not is_address:
            return data
    return None


def _strings(part: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the strings that may be data, each with whether it may be an address as well."""
    strings: list[tuple[str, bool]] = []
    for name in _HOLDERS:
        holder = part.get(name)
        if isinstance(holder, str):
            strings.append((holder, True))
        elif isinstance(holder, dict) and holder.get("type") not in ("url", "file"):
            strings += [(holder[f], f == "url") for f in _DATA_FIELDS if isinstance(holder.get(f), str)]
    direct = part.get("file_data")
    return [*strings, (direct, False)] if isinstance(direct, str) else strings


def _payload(data: str) -> str:
    """Return what follows the comma of a data URL, or all of bare base64."""
    return data[data.find(",", 0, 300) + 1 :] if data.startswith("data:") else data
