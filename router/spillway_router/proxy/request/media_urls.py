"""Refuse addresses of pictures and other media that lead into the operator's own network.

An engine fetches what `image_url` names, from inside: other services of the machine and the cloud's metadata service
would answer it. Addresses are judged as they are written; where a name leads, and where a redirect goes, only the
engine can tell, which `spillway up` starts without redirects.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from spillway_router.privacy.folding import folded, neat
from spillway_router.proxy.request.errors import bad_request

_INSIDE = ("localhost", "metadata", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")
"""Names, and ends of names, that mean something inside a network only; `metadata.google.internal` is one."""
_FETCHED = frozenset({"http", "https", "ftp"})
_HELD_ADDRESS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:[.-][0-9]{1,3}){3}(?![0-9])")
_AT_ENDS = "".join(map(chr, range(0x21)))
_LONGEST_SCHEME = 20
_LONGEST_HOST = 1_000
"""Characters of a host as it is written. A name has at most 253 (RFC 1035), each of which may be written in three."""
MOST_FETCHED = 2_000
"""Addresses that one request may have fetched. No provider takes more pictures."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def refuse_media(addresses: Iterable[str], allowed: frozenset[str], only: frozenset[str] = frozenset()) -> None:
    """Raise RefusedError if an address leads to a host inside the network that is not `allowed`, to a file, or, where
    hosts are named from which media may come `only`, to another one."""
    fetched = 0
    for written in addresses:
        address = _as_read(written)
        scheme = _scheme(address)
        if scheme == "file":
            raise bad_request("A 'file:' address names a file of the server. Send the data as a data: URL.", "messages")
        if scheme in _FETCHED:
            fetched += 1
            if fetched > MOST_FETCHED:
                message = f"The request names more than {MOST_FETCHED} addresses of media. Send fewer."
                raise bad_request(message, "messages")
            for host in _hosts(address):
                _refuse_host(host, allowed, only)


def _refuse_host(host: str, allowed: frozenset[str], only: frozenset[str]) -> None:
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
    if not name or not name.isprintable() or any(name == end or name.endswith(f".{end}") for end in _INSIDE):
        return True
    # Names such as 127.0.0.1.nip.io resolve to the address that they hold.
    held = (address_of(match.group().replace("-", ".")) for match in _HELD_ADDRESS.finditer(name))
    return any(one is not None and not one.is_global for one in held)


def addresses_in(content: object) -> Iterator[str]:
    """Yield the addresses of media anywhere in a request's content."""
    nodes: list[object] = [content]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            for name, value in node.items():
                if isinstance(value, str):
                    if name.endswith("url") and (name == "url" or name.endswith("_url")):
                        yield value.strip()
                elif isinstance(value, list | dict):
                    nodes.append(value)


def _as_read(address: str) -> str:
    """Return an address as clients read it (https://url.spec.whatwg.org/#concept-basic-url-parser): without control
    characters and spaces at its ends, and without tabs and line ends anywhere."""
    # str.translate takes a second for the megabytes of pictures in a request.
    return address.strip(_AT_ENDS).replace("\t", "").replace("\r", "").replace("\n", "")


def _scheme(address: str) -> str:
    """Return the scheme of an address in lower case. One that begins with `//` is read as one of HTTP; "" stands for
    none."""
    if address.startswith(("//", "\\\\")):
        return "http"
    scheme, colon, _ = address.partition(":")
    return scheme.lower() if colon and len(scheme) <= _LONGEST_SCHEME else ""


def _hosts(address: str) -> set[str]:
    """Return the hosts that clients may take an address for: some read a backslash as a slash, and some don't."""
    return {_host(address), _host(address.replace("\\", "/"))} if "\\" in address else {_host(address)}


def _host(address: str) -> str:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return ""
    if len(host) > _LONGEST_HOST:
        return ""
    # Clients decode a name and map its characters as IDNA does: full width, circled digits, invisible characters.
    return folded(neat(unquote(host))).replace("\u3002", ".")


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is, in any spelling that C libraries read (decimal, octal, hex, shortened)."""
    if ":" not in host and not host[:1].isdecimal():
        return None
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
        except (OSError, ValueError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64 or address.sixtofour is not None:
            return address.sixtofour or ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
