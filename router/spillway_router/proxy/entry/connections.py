"""How many connections each address has open, so that one client cannot take all that the router can hold."""

from __future__ import annotations

from spillway_router.proxy.request.peers import address_group

_OWN_HOST = frozenset({"127.0.0.1", "::1"})
"""A proxy or a tunnel on the router's own host stands for many clients, so that these are not counted."""


def counted_address(peer: tuple[str, int] | None) -> str:
    """Return what a peer's connections are counted under; empty if they are not counted."""
    if peer is None or peer[0] in _OWN_HOST:
        return ""
    address = address_group(peer[0])
    return "" if address in _OWN_HOST else address


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
