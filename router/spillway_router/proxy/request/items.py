"""The items of a request: its fields, content parts and tools by kind, for the part of its cost that bytes don't show.

A name of an item that no provider's list knows (providers/bounded_fields.yaml) is the client's own text. It is shown to
that client only, cleaned and cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from spillway_router.core.money.bounds import RequestItem
from spillway_router.core.money.tariff import mode_of
from spillway_router.core.routing.model import Endpoint
from spillway_router.providers.bounded import BoundedLists, bounded_lists
from spillway_router.proxy.request.large_body import LargeBody, cut_strings

MOST_UNKNOWN = 8
"""Kinds that are on no list, of which a request keeps the first ones. One is enough to refuse it."""
PLAIN_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal"})
"""Keys of a message that are nothing but text of the prompt at every provider."""
_COUNTED: Mapping[Endpoint, frozenset[str]] = {
    "chat": frozenset({"messages", "n", "best_of"}),
    "completions": frozenset({"prompt", "n", "best_of"}),
    "embeddings": frozenset({"input"}),
    "responses": frozenset({"input"}),
    "messages": frozenset({"messages"}),
}
"""Fields that the bound counts by themselves, besides those of every endpoint."""
_ALWAYS = frozenset(
    {"model", "stream", "stream_options", "models", "route"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens"}
)
"""`models` and `route` never leave: the router itself acts on them. The bound of the output is sent in the provider's
spelling."""
_SOURCES = ("file_id", "file_data", "file_url")
_SAFE = re.compile(r"[A-Za-z0-9_.:/+()-]{1,64}")
_DATE = re.compile(r"_\d{8}$")
_UNNAMED = "(unnamed)"
_FUNCTION = "tool:function"
_OF_FUNCTION = frozenset(
    {"function", "parameters", "input_schema", "output_schema", "inputSchema", "outputSchema", "parametersJsonSchema"}
    | {"cache_control", "metadata", "annotations", "format", "custom"}
)
"""Keys of a function, in any protocol, that have an object."""
_NESTED = ("content", "output", "source")


def request_items(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[RequestItem, ...]:
    """Return the items of a body, each kind once. Fields with null are not there."""
    lists = bounded_lists()
    modes, items = lists.mode_fields, _Items(lists, cut_strings(body))
    for name, value in body.items():
        if value is not None and name not in _ALWAYS and name not in _COUNTED[endpoint] and name not in modes:
            items.field(name, value, _size_bytes(body, value) if name in lists.sized_names else 0)
    if endpoint in ("chat", "messages"):
        for i, message in enumerate(body["messages"]):
            for key in message.keys() - {"role", "content"}:
                if message[key] is not None:
                    items.add(f"messages.{key}", f"messages[{i}].{key}")
            items.parts(message.get("content"), f"messages[{i}].content")
        if endpoint == "messages":
            items.parts(body.get("system"), "system")
    elif endpoint in ("responses", "embeddings"):
        items.inputs(body.get("input"), typed=endpoint == "responses")
    return items.all


def _size_bytes(body: Mapping[str, Any], value: object) -> int:
    if isinstance(body, LargeBody):
        return body.text_bytes  # its strings may be cut
    return len(orjson.dumps(value)) if isinstance(value, str | list | dict) else 0


@dataclass(slots=True)
class _Sum:
    """What a RequestItem says of all items of one kind, while they are counted."""

    where: str
    count: int = 0
    size_bytes: int = 0
    uses: int = 0
    unlimited: int = 0


class _Items:
    def __init__(self, lists: BoundedLists, cut: Mapping[str, int]) -> None:
        self._lists = lists
        self._cut = cut
        self._sums: dict[str, _Sum] = {}
        self._unknown = 0

    @property
    def all(self) -> tuple[RequestItem, ...]:
        return tuple(
            RequestItem(name, s.where, count=s.count, size_bytes=s.size_bytes, uses=s.uses, unlimited=s.unlimited)
            for name, s in self._sums.items()
        )

    def add(self, name: str, where: str, size_bytes: int = 0, uses: int = 0, unlimited: int = 0) -> None:
        item_sum = self._sums.get(name)
        if item_sum is None:
            if name not in self._lists.names:
                if self._unknown == MOST_UNKNOWN:
                    return
                self._unknown += 1
                name, where = _shown(name), _shown(where)
            item_sum = self._sums[name] = _Sum(where)
        elif name in self._lists.plain_names:
            return
        item_sum.count += 1
        item_sum.size_bytes += size_bytes
        item_sum.uses += uses
        item_sum.unlimited += unlimited

    def field(self, name: str, value: object, size_bytes: int) -> None:
        if name in ("tools", "functions"):
            if value:
                self.add(name, name)
                self.tools(value, name)
        elif name in self._lists.valued_fields:
            self.add(f"{name}={_value_text(value)}", name)
        elif name in self._lists.keyed_fields and isinstance(value, dict):
            for key, inner in value.items():
                if inner is not None:
                    item = f"{name}.{key}"
                    valued = item in self._lists.valued_fields
                    self.add(f"{item}={_value_text(inner)}" if valued else item, item)
        elif name == "max_tool_calls":
            limit = value if type(value) is int and value >= 0 else None
            self.add(name, name, uses=limit or 0, unlimited=limit is None)
        else:
            self.add(name, name, size_bytes)

    def tools(self, tools: object, name: str) -> None:
        functions = 0
        for i, tool in enumerate(tools if isinstance(tools, list) else ()):
            if type(tool) is dict and tool.get("type") == "function" and not _own_object(tool):  # nearly every tool
                functions += 1
                continue
            if not isinstance(tool, dict):
                self.add("tool:(unnamed)", f"{name}[{i}]")
                continue
            item, limit = tool_item(tool), limit_of(tool)
            if item != _FUNCTION and limit is None and self._cut:
                item += "/long_body"  # its limit could not be written into a body that was read in parts
            self.add(item, f"{name}[{i}]", uses=limit or 0, unlimited=limit is None)
        if functions:
            self._sums.setdefault(_FUNCTION, _Sum(name)).count += functions

    def inputs(self, inputs: object, *, typed: bool) -> None:
        for i, item in enumerate(inputs if isinstance(inputs, list) else ()):
            if not isinstance(item, dict):
                continue
            where = f"input[{i}]"
            kind = item.get("type")
            if typed:
                name = "message" if kind is None else kind if isinstance(kind, str) else _UNNAMED
                if name == "reasoning":
                    name += "/encrypted_content" if item.get("encrypted_content") else "/id"
                self.add(f"item:{name}", where)
                self.parts([item.get("content"), item.get("output"), item.get("summary")], where)
            else:
                self.parts([item], where)

    def parts(self, content: object, where: str) -> None:
        """Add the content parts below `content`, however deep."""
        nodes: list[object] = [content]
        while nodes:
            node = nodes.pop()
            if isinstance(node, list):
                nodes += node
            elif isinstance(node, dict):
                kind = node.get("type")
                if isinstance(kind, str):
                    self.add(f"part:{_part_name(kind, node)}", where)
                elif kind is not None or "text" not in node:
                    self.add("part:(unnamed)", where)
                nodes += _below(node)


def tool_item(tool: Mapping[str, Any]) -> str:
    """Return the name of a tool's item: its type without the date of its version."""
    kind = tool.get("type") or "function"
    if not isinstance(kind, str):
        return f"tool:{_UNNAMED}"
    if kind == "function" and (own := _own_object(tool)):
        return f"tool:{own}"
    if not tool.get("type") and not tool.get("name") and not tool.get("function"):
        return f"tool:{_UNNAMED}"
    container = tool.get("container")
    if kind == "code_interpreter" and isinstance(container, dict) and container.get("memory_limit"):
        return f"tool:{kind}/memory_limit"  # a larger container has a higher fee
    if kind == "code_interpreter" and isinstance(container, str):
        return f"tool:{kind}/container_id"  # somebody made it before, at any size, and each use makes it live longer
    return f"tool:{_DATE.sub('', kind)}"


def _own_object(tool: Mapping[str, Any]) -> str:
    """Return the key of an object in a function that is not part of one; "" if there is none.

    Google's tools are objects under their own names without a type, such as `{"googleSearch": {}}`
    (developer.konghq.com/how-to/use-gemini-3-google-search), and a gateway may read them beside a function.
    """
    for key, value in tool.items():
        if type(value) is dict and key not in _OF_FUNCTION:
            return key
    return ""


def limit_of(tool: Mapping[str, Any]) -> int | None:
    """Return the client's limit on the uses of a tool; None if it set none that can be read."""
    limit = tool.get("max_uses")
    return limit if type(limit) is int and limit >= 0 else None


def _below(part: Mapping[str, Any]) -> Iterator[object]:
    """Yield what may hold further parts; the source of a document is no part by itself."""
    for name in _NESTED:
        if name not in part:
            continue
        inner = part[name]
        if name == "source" and isinstance(inner, dict):
            inner = inner.get("content")
        if isinstance(inner, list | dict):
            yield inner


def _part_name(kind: str, part: Mapping[str, Any]) -> str:
    """Return the kind of a part with how it is given, such as document/url or file/file_id."""
    if kind in ("file", "input_file"):
        holder = part.get("file") if isinstance(part.get("file"), dict) else part
        given = [name for name in _SOURCES if isinstance(holder, dict) and holder.get(name)]
        return f"{kind}/{given[0]}" if len(given) == 1 else f"{kind}/{_UNNAMED}"
    name = kind
    if kind == "document":
        source = part.get("source")
        given_as = source.get("type") if isinstance(source, dict) else None
        name = f"document/{given_as}" if isinstance(given_as, str) else f"document/{_UNNAMED}"
    if kind in ("document", "search_result"):
        citations = part.get("citations")
        if isinstance(citations, dict) and citations.get("enabled") is not False:
            name += "+citations"
    return name


def _value_text(value: object) -> str:
    """Return a short text of a field's value: of a word, a number, a list of words, or of the edits of an object."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value).lower()
    if isinstance(value, dict):
        edits = value.get("edits")
        value = [edit.get("type") for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else None
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return "+".join(sorted({_DATE.sub("", word.lower()) for word in value}))
    return _UNNAMED


def _shown(text: str) -> str:
    return text if _SAFE.fullmatch(text.replace("[", "").replace("]", "").replace("=", "")) else _UNNAMED


def requested_mode(body: Mapping[str, Any]) -> str:
    """Return the service that the body asks for: its service_tier and other modes with prices of their own, joined."""
    return mode_of([body.get(name) for name in bounded_lists().mode_fields])


def hides_input(items: Iterable[RequestItem]) -> bool:
    """Return whether an item may stand for more input than its bytes."""
    lists = bounded_lists()
    return any(
        item.name in lists.context_names or (":" in item.name and item.name not in lists.names) for item in items
    )
