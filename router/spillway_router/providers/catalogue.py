"""The catalogue of providers: entries from catalogue.yaml, their adapters, and the Target of a configured backend.

To add a provider, write an entry in catalogue.yaml and its recorded answers in tests/providers/shapes/. Only a provider
with a wire protocol of its own needs a new adapter, which is a class and a line in `ADAPTERS`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args
from urllib.parse import SplitResult, urlsplit

from spillway_router.core.routing.model import Capability, Endpoint, OnDisconnect
from spillway_router.http_client.types import Target
from spillway_router.providers.interface import (
    AuthStyle,
    CatalogueEntry,
    OutputBoundField,
    Provider,
    ProviderError,
)
from spillway_router.providers.openai_compatible import OpenAICompatible
from spillway_router.providers.table_files import read_table
from spillway_router.providers.usage import UsageDialect, UsagePlace
from spillway_router.providers.vllm import LocalEngine

CATALOGUE_FILE = Path(__file__).with_name("catalogue.yaml")
ADAPTERS: Mapping[str, Callable[[CatalogueEntry], Provider]] = MappingProxyType(
    {"openai": OpenAICompatible, "engine": LocalEngine}
)
_ROUTING = "routing"
"""The list of catalogue.yaml that is dropped unless an entry says `keeps_routing_fields: true`."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DEFAULT_PREFIX = "/v1"
_UNIX = "unix://"
_KEY = re.compile(r"[\x21-\x7e]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?")
_FRAMING = ("host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "te", "trailer")
_ROUTERS_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((*_FRAMING, "upgrade", "expect", "accept-encoding", "x-client-request-id"), ""),
        **dict.fromkeys(("authorization", "x-api-key"), ", and set the key as api_key"),
    }
)
"""Headers that `backends[].headers` may not name, each with what to do instead."""
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_ENDPOINT_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models")


@functools.cache
def load_catalogue(path: Path = CATALOGUE_FILE) -> Mapping[str, CatalogueEntry]:
    """Return provider name -> entry, in the file's order. Raises ProviderError, which names the entry and key at
    fault."""
    try:
        raw = read_table(path)
        rows, lists = raw["providers"], raw.get("lists") or {}
        return MappingProxyType({name: _entry(name, row, lists) for name, row in rows.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ProviderError(f"{path}: not a usable catalogue: {error!r}") from None


def provider_for(entry: CatalogueEntry) -> Provider:
    """Return the adapter that speaks the entry's protocol."""
    return ADAPTERS[entry.adapter](entry)


def target(
    entry: CatalogueEntry,
    base_url: str | None = None,
    api_key: str | None = None,
    more_headers: Mapping[str, str] | None = None,
) -> Target:
    """Return where calls go, and with which headers. `base_url`: None means the catalogue's. `more_headers` replace
    those of the catalogue.

    `unix:///run/engine.sock` means HTTP over a Unix socket, with the catalogue's path. Raises ProviderError for an
    unusable URL, key or header; the message never contains a header's value.
    """
    own_headers = _own_headers(more_headers or {})
    extra_headers = tuple((n.encode(), v.encode()) for n, v in entry.extra_headers if n.encode() not in own_headers)
    headers = (*_credentials(entry, api_key), *extra_headers, *own_headers.items())
    url = (base_url if base_url is not None else entry.base_url).strip()
    if not url:
        raise ProviderError(f"provider {entry.name} needs a base_url, like http://127.0.0.1:9000/v1")
    if url.startswith(_UNIX):
        return _socket_target(entry, url, headers)
    parts = _split(url)
    host = parts.hostname or ""
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == _DEFAULT_PORTS[parts.scheme] else f"{shown}:{port}"
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port,
        prefix=parts.path.rstrip("/"),
        headers=headers,
        authority=authority.encode(),
    )


def _socket_target(entry: CatalogueEntry, url: str, headers: tuple[tuple[bytes, bytes], ...]) -> Target:
    path = url.removeprefix(_UNIX)
    if not path.startswith("/") or path == "/" or "\0" in path or "?" in path or "#" in path:
        raise ProviderError(f"base_url {url!r}: write the socket's absolute path, like unix:///run/vllm.sock")
    prefix = urlsplit(entry.base_url).path.rstrip("/") if entry.base_url else _DEFAULT_PREFIX
    return Target(
        scheme="http", host="localhost", port=0, prefix=prefix, headers=headers, authority=b"localhost", uds=path
    )


def _split(url: str) -> SplitResult:
    """Check a base URL and return its parts. Messages repeat nothing that may be a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ProviderError("base_url has an unusable host or port; write it like https://host:8443/v1") from None
    if parts.username is not None or parts.password is not None:
        raise ProviderError("base_url must contain no user or password; set the key as api_key")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ProviderError("base_url must end with its path; remove what follows '?' or '#'")
    if parts.scheme not in _DEFAULT_PORTS:
        raise ProviderError(f"base_url {url!r} must begin with http://, https:// or unix:///")
    if not _host_ok(parts.hostname or "") or port == 0:
        raise ProviderError(f"base_url {url!r} has no usable host and port; write it like http://127.0.0.1:8000/v1")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or "/.." in path or "/./" in path:
        raise ProviderError(f"base_url {url!r} has an unusable path; use plain ASCII such as /v1")
    for ending in _ENDPOINT_PATHS:
        if path.endswith(ending):
            raise ProviderError(f"base_url {url!r} must end before {ending}: Spillway adds the endpoint")
    return parts


def _host_ok(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _credentials(entry: CatalogueEntry, api_key: str | None) -> tuple[tuple[bytes, bytes], ...]:
    if entry.auth == "none":
        return ()
    if not api_key:
        if not entry.key_variable:
            return ()
        raise ProviderError(
            f"provider {entry.name} has no key: set {entry.key_variable} or api_key, or remove the backend"
        )
    if not _KEY.fullmatch(api_key):
        raise ProviderError(
            f"the key of provider {entry.name} contains a space, a line break or a non-ASCII character; "
            f"copy it again{' into ' + entry.key_variable if entry.key_variable else ''}"
        )
    if entry.auth == "x-api-key":
        return ((b"x-api-key", api_key.encode()),)
    return ((b"authorization", b"Bearer " + api_key.encode()),)


def _own_headers(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Check a backend's own headers and return them by lowercase name. Messages repeat no value: it may be a secret."""
    checked: dict[bytes, bytes] = {}
    for name, value in headers.items():
        low = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            shown = name.partition(":")[0]  # what follows is a value that lost the blank before it
            raise ProviderError(f"headers: {shown!r} is no name of a header: write NAME: VALUE")
        if low in _ROUTERS_HEADERS:
            raise ProviderError(f"headers: {name} is set by Spillway; remove it{_ROUTERS_HEADERS[low]}")
        if low.encode() in checked:
            raise ProviderError(f"headers: {name} stands there twice")
        if not _HEADER_VALUE.fullmatch(value):
            raise ProviderError(f"headers: the value of {name} must be printable ASCII, at most 4096 characters")
        checked[low.encode()] = value.encode("ascii")
    return checked


def _entry(name: str, row: Mapping[str, Any], lists: Mapping[str, list[str]]) -> CatalogueEntry:
    unknown = row.keys() - _KEYS
    if unknown:
        raise ProviderError(f"catalogue entry {name}: unknown key {sorted(unknown)[0]!r}")
    adapter = row.get("adapter", "openai")
    if adapter not in ADAPTERS:
        raise ProviderError(f"catalogue entry {name}: adapter is {adapter!r}, it must be one of {sorted(ADAPTERS)}")
    on_disconnect = _one_of(name, "on_disconnect", row["on_disconnect"], get_args(OnDisconnect))
    if not row["on_disconnect_source"]:
        raise ProviderError(
            f"catalogue entry {name}: on_disconnect_source is empty; say where on_disconnect is documented"
        )
    return CatalogueEntry(
        name=name,
        base_url=str(row["base_url"]).rstrip("/"),
        key_variable=str(row["key_variable"]),
        auth=_one_of(name, "auth", row["auth"], get_args(AuthStyle)),
        local=_flag(name, "local", row["local"]),
        endpoints=_all_of(name, "endpoints", row["endpoints"], get_args(Endpoint)),
        capabilities=_all_of(name, "capabilities", row["capabilities"], get_args(Capability)),
        on_disconnect=on_disconnect,
        on_disconnect_whole=_one_of(
            name,
            "on_disconnect_whole",
            row.get("on_disconnect_whole", "continues" if on_disconnect == "continues" else "unknown"),
            get_args(OnDisconnect),
        ),
        tells_usage=_flag(name, "tells_usage", row["tells_usage"]),
        collects_data=_flag(name, "collects_data", row["collects_data"]),
        extra_headers=tuple((str(n).lower(), str(v)) for n, v in row.get("headers", {}).items()),
        drops_fields=_dropped_fields(name, row, lists),
        withheld_fields=_listed(row.get("withholds", ()), lists),
        health_path=str(row.get("health", "")),
        metrics=str(row.get("metrics", "")),
        adapter=adapter,
        request_fault=frozenset(row.get("request_fault", ())),
        usage_unasked=_flag(name, "usage_unasked", row.get("usage_unasked", False)),
        stall_s=_seconds(name, "stall_s", row.get("stall_s", 0)),
        tool_stall_s=_seconds(name, "tool_stall_s", row.get("tool_stall_s", 0)),
        counts_tokens=_all_of(name, "counts_tokens", row.get("counts_tokens", []), ("messages", "responses")),
        output_bound_field=_one_of(
            name, "output_bound_field", row.get("output_bound_field", "max_tokens"), get_args(OutputBoundField)
        ),
        sends_max_price=_flag(name, "sends_max_price", row.get("sends_max_price", False)),
        usage=_usage_dialect(name, row.get("usage", {})),
        max_inputs=_count(name, "max_inputs", row["max_inputs"]) if "max_inputs" in row else None,
        sequences=_count(name, "sequences", row["sequences"]) if "sequences" in row else None,
        hides_too_long=_flag(name, "hides_too_long", row.get("hides_too_long", False)),
    )


_KEYS = frozenset(
    {
        "base_url",
        "key_variable",
        "auth",
        "adapter",
        "local",
        "endpoints",
        "capabilities",
        "headers",
        "drops",
        "withholds",
    }
    | {"keeps_routing_fields", "output_bound_field", "request_fault", "on_disconnect", "collects_data"}
    | {"on_disconnect_whole", "on_disconnect_source", "tells_usage"}
    | {
        "usage_unasked",
        "stall_s",
        "tool_stall_s",
        "counts_tokens",
        "health",
        "metrics",
        "sends_max_price",
        "usage",
        "max_inputs",
        "sequences",
        "hides_too_long",
    }
)
_USAGE_KEYS = frozenset({"elsewhere", "cost", "model", "zero_prompt"})


def _usage_dialect(name: str, row: Mapping[str, Any]) -> UsageDialect:
    unknown = row.keys() - _USAGE_KEYS
    if unknown:
        raise ProviderError(f"catalogue entry {name}: unknown key 'usage.{sorted(unknown)[0]}'")
    places = row.get("elsewhere", [])
    return UsageDialect(
        elsewhere=tuple(_one_of(name, "usage.elsewhere", place, get_args(UsagePlace)) for place in places),
        tells_cost=_flag(name, "usage.cost", row.get("cost", False)),
        tells_model=_flag(name, "usage.model", row.get("model", False)),
        zero_prompt=_flag(name, "usage.zero_prompt", row.get("zero_prompt", False)),
    )


def _dropped_fields(name: str, row: Mapping[str, Any], lists: Mapping[str, list[str]]) -> frozenset[str]:
    keeps_routing_fields = _flag(name, "keeps_routing_fields", row.get("keeps_routing_fields", False))
    items = [*row.get("drops", ()), *(() if keeps_routing_fields else (_ROUTING,))]
    return _listed(items, lists)


def _listed(items: Iterable[str], lists: Mapping[str, list[str]]) -> frozenset[str]:
    return frozenset(field for item in items for field in lists.get(item, (item,)))


def _flag(name: str, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ProviderError(f"catalogue entry {name}: {key} is {value!r}, it must be true or false")
    return value


def _seconds(name: str, key: str, value: object) -> float:
    if type(value) not in (int, float) or not 0 <= float(str(value)) <= 3600:
        raise ProviderError(f"catalogue entry {name}: {key} is {value!r}, it must be seconds from 0 to 3600")
    return float(str(value))


def _count(name: str, key: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise ProviderError(f"catalogue entry {name}: {key} is {value!r}, it must be a whole number from 1 on")
    return value


def _one_of(name: str, key: str, value: object, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ProviderError(f"catalogue entry {name}: {key} is {value!r}, it must be one of {', '.join(allowed)}")
    return value


def _all_of(name: str, key: str, values: list[object], allowed: tuple[Any, ...]) -> frozenset[Any]:
    return frozenset(_one_of(name, key, value, allowed) for value in values)
