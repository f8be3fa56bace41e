"""Whose connection it is: the address of a peer as limits count it."""

from __future__ import annotations

import ipaddress


def address_group(host: str) -> str:
    """Return what a peer is counted under: an IPv4 address, or of an IPv6 address the network of 64 bits, all of which
    one client has. It is "" for a Unix socket."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if address.version == 4:
        return host
    if address.is_loopback:
        return str(address)
    mapped = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 64), strict=False)) if mapped is None else str(mapped)
