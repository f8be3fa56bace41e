"""How many connections each address has open, so that one client cannot take all that the router can hold."""

from __future__ import annotations

import ipaddress

_OWN_HOST = frozenset({"127.0.0.1", "::1"})
"""A proxy or a tunnel on the router's own host stands for many clients, so that these are not counted."""


def counted_address(peer: tuple[str, int] | None) -> str:
    """Return what a peer's connections are counted under; empty if they are not counted. Of an IPv6 address it is the
    network of 64 bits: one client has all of it."""
    if peer is None or peer[0] in _OWN_HOST:
        return ""
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return ""  # a Unix socket
    if address.version == 4:
        return peer[0]
    mapped = address.ipv4_mapped
    if mapped is not None:
        return "" if str(mapped) in _OWN_HOST else str(mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class ConnectionCounts:
    """The open connections by address."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def enter(self, address: str, most: int) -> bool:
        """Count a connection; return False, without counting it, if the address has `most` (0: any number)."""
        if not address:
            return True
        count = self._open.get(address, 0)
        if most and count >= most:
            return False
        self._open[address] = count + 1
        return True

    def total(self) -> int:
        """Return the number of connections that are counted."""
        return sum(self._open.values())

    def leave(self, address: str) -> None:
        """Count a connection out."""
        count = self._open[address] - 1
        if count:
            self._open[address] = count
        else:
            del self._open[address]
