"""Open a socket to a host by name: one lookup at a time for each target, and the fastest of its addresses.

A name that does not resolve occupies a thread of its own and no shared one, so that it delays no other target. Where
packets to one address vanish (IPv6 behind many VPNs), the next address is tried after a quarter of a second, as
RFC 8305 (happy eyeballs) asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from spillway_router.http_client.own_limits import is_own

NEXT_ADDRESS_S = 0.25
"""How long one address is tried before the next one is tried as well."""
KNOWN_S = 30.0
"""How long the addresses of a name are used without another lookup."""
_MOST_ADDRESSES = 8
_SHOWN_ADDRESSES = 3

MayDial = Callable[[str], bool]
"""Whether a connection to this address is permitted."""
GetAddrInfo = Callable[..., Sequence[tuple[Any, ...]]]
"""What looks a name up, as `socket.getaddrinfo` does; it blocks."""


class Address(NamedTuple):
    """One address of a target, as `socket` takes it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


class Resolver:
    """Looks up the addresses of one host, in a thread of its own, and remembers them for a while."""

    def __init__(self, host: str, port: int, look_up: GetAddrInfo | None = None) -> None:
        self._host, self._port = host, port
        self._getaddrinfo = look_up
        self._known: tuple[Address, ...] = ()
        self._known_until_s = 0.0
        self._lookup: asyncio.Future[tuple[Address, ...] | OSError] | None = None

    def forget(self) -> None:
        """Look the name up again next time: it may lead elsewhere by now."""
        self._known_until_s = 0.0

    async def addresses(self, loop: asyncio.AbstractEventLoop) -> Sequence[Address]:
        """Return the addresses, one family after the other by turns. Raises OSError; the caller limits the time."""
        if time.monotonic() < self._known_until_s:
            return self._known
        if self._lookup is None or self._lookup.get_loop() is not loop:
            self._lookup = loop.create_future()
            threading.Thread(target=self._look_up, args=(loop, self._lookup), name="resolve", daemon=True).start()
        result = await asyncio.shield(self._lookup)  # others may wait for the same lookup
        if isinstance(result, OSError):
            raise OSError(f"the name {self._host} does not resolve: {result.strerror or result}")
        return result

    def _look_up(self, loop: asyncio.AbstractEventLoop, lookup: asyncio.Future[tuple[Address, ...] | OSError]) -> None:
        """Look the name up; this blocks, so it runs in a thread."""
        result: tuple[Address, ...] | OSError
        try:
            infos = (self._getaddrinfo or socket.getaddrinfo)(self._host, self._port, type=socket.SOCK_STREAM)
            result = _by_turns([Address(family, sockaddr) for family, _, _, _, sockaddr in infos])
        except (OSError, UnicodeError) as error:
            result = error if isinstance(error, OSError) else OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._on_found, lookup, result)

    def _on_found(
        self, lookup: asyncio.Future[tuple[Address, ...] | OSError], result: tuple[Address, ...] | OSError
    ) -> None:
        if self._lookup is lookup:
            self._lookup = None
        if not isinstance(result, OSError):
            self._known, self._known_until_s = result, time.monotonic() + KNOWN_S
        if not lookup.done():
            lookup.set_result(result)


class Dialer:
    """Opens sockets to one host and port, and to those of its addresses only that `may_dial` permits."""

    def __init__(
        self, host: str, port: int, may_dial: MayDial | None = None, look_up: GetAddrInfo | None = None
    ) -> None:
        self.is_address = is_address(host)
        self._host = host
        self._may_dial = may_dial
        self._resolver = Resolver(host, port, look_up)

    def check_host(self) -> None:
        """Raise OSError for a host that is an address and may not be dialled."""
        if self._may_dial is not None and not self._may_dial(self._host):
            raise OSError(f"{self._host} {_PUBLIC}")

    async def connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Return a connected socket. Raises OSError; the caller limits the time."""
        try:
            return await _fastest(loop, self._permitted(await self._resolver.addresses(loop)))
        except OSError:
            self._resolver.forget()
            raise

    def _permitted(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """Return the addresses that may be dialled. A name may lead elsewhere than when the router started."""
        if self._may_dial is None:
            return addresses
        permitted = [address for address in addresses if self._may_dial(address.sockaddr[0])]
        if addresses and not permitted:
            shown = ", ".join(str(address.sockaddr[0]) for address in addresses[:_SHOWN_ADDRESSES])
            raise OSError(f"the name {self._host} leads to {shown}, which {_PUBLIC}")
        return permitted


_PUBLIC = (
    "is a public address, and the backend is local: nothing was sent. Set `local: false` with a price, or say in "
    "`own_host` why the machine is yours"
)


def is_address(host: str) -> bool:
    """Return whether this is an IP address, which needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _by_turns(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Order the addresses so that the families take turns, beginning with the first one's."""
    if not addresses:
        return ()
    preferred = [a for a in addresses if a.family == addresses[0].family]
    others = [a for a in addresses if a.family != addresses[0].family]
    turns = [a for pair in zip_longest(preferred, others) for a in pair if a is not None]
    return tuple(dict.fromkeys(turns))[:_MOST_ADDRESSES]


async def _fastest(loop: asyncio.AbstractEventLoop, addresses: Sequence[Address]) -> socket.socket:
    """Return a socket to the address that answers first; each further one is tried a moment after the one before."""
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    error: BaseException = OSError("the name has no address")
    try:
        while waiting or running:
            if waiting:
                running.add(loop.create_task(_connected(loop, waiting.pop(0))))
            limit_s = NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(running, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                failure = task.exception()
                if failure is None:
                    running |= done - {task}
                    return task.result()
                # An address of a family that this machine lacks says nothing, if another one tells more.
                if not is_own(failure) or not isinstance(error, OSError) or error.errno is None:
                    error = failure
        raise error
    finally:
        for task in running:
            task.add_done_callback(_close_unused)
            task.cancel()


async def _connected(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        await loop.sock_connect(opened, address.sockaddr)
    except BaseException:
        opened.close()
        raise
    return opened


def _close_unused(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
