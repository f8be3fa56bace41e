"""Refuse addresses of pictures and other media that lead into the operator's own network.

An engine fetches what `image_url` names, from inside: other services of the machine and the cloud's metadata service
would answer it. Addresses are judged as they are written; where a name leads, and where a redirect goes, only the
engine can tell, which `spillway up` starts without redirects.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from spillway_router.proxy.request.errors import bad_request

_INSIDE = ("localhost", "metadata", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")
"""Names, and ends of names, that mean something inside a network only; `metadata.google.internal` is one."""
_FETCHED = frozenset({"http", "https", "ftp"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def refuse_media(addresses: Iterable[str], allowed: frozenset[str], only: frozenset[str] = frozenset()) -> None:
    """Raise RefusedError if an address leads to a host inside the network that is not `allowed`, to a file, or, where
    hosts are named from which media may come `only`, to another one."""
    for address in addresses:
        scheme = address.split(":", 1)[0].strip().lower() if ":" in address[:20] else ""
        if scheme == "file":
            raise bad_request("A 'file:' address names a file of the server. Send the data as a data: URL.", "messages")
        if scheme in _FETCHED:
            host = _host(address)
            if host not in allowed and is_internal(host):
                message = (
                    f"The address of a medium leads into the router's own network ({host[:100]!r}). Send the data as a "
                    "data: URL, or let the operator add the host to media.allowed_hosts."
                )
                raise bad_request(message, "messages")
            if only and host not in only:
                message = (
                    f"Media may not be fetched from {host[:100]!r} here. Send the data as a data: URL, or let the "
                    "operator add the host to media.only_hosts."
                )
                raise bad_request(message, "messages")


def is_internal(host: str) -> bool:
    """Return whether a host, as it stands in a URL, is no public one. An unreadable one counts as internal."""
    address = address_of(host)
    if address is not None:
        return not address.is_global or address.is_multicast
    name = host.rstrip(".")
    return not name or any(name == end or name.endswith(f".{end}") for end in _INSIDE)


def addresses_in(content: object) -> Iterator[str]:
    """Yield the addresses of media anywhere in a request's content."""
    nodes: list[object] = [content]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            yield from _addresses_of(node)
            nodes += [value for value in node.values() if isinstance(value, list | dict)]


def _addresses_of(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if (name == "url" or name.endswith("_url")) and isinstance(value, str):
            yield value.strip()


def _host(address: str) -> str:
    try:
        return (urlsplit(address.replace("\\", "/")).hostname or "").lower()
    except ValueError:
        return ""


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is, in any spelling that C libraries read (decimal, octal, hex, shortened)."""
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64 or address.sixtofour is not None:
            return address.sixtofour or ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
