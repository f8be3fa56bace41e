"""Where a backend is: whether its address may be called local, and whether its key travels in clear.

`place_of` judges what is written: a name by the catalogue of providers, and an address by its range. `named_places`
asks where the names of local backends lead at this moment. They may lead elsewhere a moment later, so the pool of such
a backend judges each address again before it dials it (`is_inside`).
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import BackendPart
from spillway_router.providers.interface import CatalogueEntry
from spillway_router.proxy.request.media_urls import address_of, is_internal

RESOLVE_S = 2.0
"""How long all names together are looked up, in seconds."""
_LOOKUPS = 16
"""Names that are looked up at a time."""
_FIX = (
    "private content would go there, and cost nothing in the books. Set `local: false` with a price, or say in "
    "`own_host` why the machine is yours"
)

Lookup = Callable[[str], Sequence[str]]
"""Returns the addresses of a name; it blocks, and raises OSError for one that has none."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is wrong with the place of a backend. A `problem` prevents its use, a `warning` does not; "" for neither."""

    problem: str = ""
    warning: str = ""


def place_of(
    part: BackendPart, entry: CatalogueEntry, catalogue: Mapping[str, CatalogueEntry], *, local: bool
) -> Place:
    """Judge the place of a backend by its address as it is written."""
    url = part.base_url or entry.base_url
    try:
        parsed = urlsplit(url)
        host = (parsed.hostname or "").lower().rstrip(".")
    except ValueError:  # reported where the address is read
        return Place()
    if parsed.scheme == "unix" or not host:
        return Place()
    if local:
        cloud = _cloud_at(host, catalogue.values())
        if cloud:
            return Place(f"is local, but {host} is {cloud}: private content would go there. Remove `local: true`")
        address = address_of(host)
        if address is not None and address.is_global and not part.own_host:
            return Place(f"is local, but {host} is a public address: {_FIX}")
    if part.base_url and parsed.path in ("", "/"):
        whole = f"{part.base_url.rstrip('/')}/v1"
        return Place(warning=f"base_url has no path, and the API usually begins at /v1: write {whole}")
    if parsed.scheme == "http" and not is_internal(host) and "." in host and (part.api_key or part.headers or local):
        return Place(warning=f"{host} is reached without TLS: keys and prompts may travel in clear; use https://")
    return Place()


def _cloud_at(host: str, entries: Iterable[CatalogueEntry]) -> str:
    """Return the name of the cloud whose API is at this host, or ""."""
    for entry in entries:
        cloud_host = "" if entry.local else (urlsplit(entry.base_url).hostname or "")
        if cloud_host and (host == cloud_host or host.endswith(f".{cloud_host}")):
            return entry.name
    return ""


def is_inside(address: str) -> bool:
    """Return whether an IP address lies in no public range. What can't be read as an address does not."""
    read = address_of(address)
    return read is not None and not read.is_global


@dataclass(frozen=True, slots=True)
class NamedPlaces:
    """Where the names of local backends lead: public addresses only (`problems`), some of them (`warnings`), or nobody
    knows (`unresolved`)."""

    problems: tuple[ConfigProblem, ...] = ()
    warnings: tuple[ConfigProblem, ...] = ()
    unresolved: tuple[ConfigProblem, ...] = ()


def look_up(host: str) -> tuple[str, ...]:
    """Return the addresses of a name. This blocks. Raises OSError."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return tuple(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in infos))


def named_places(hosts: Mapping[str, str], lookup: Lookup = look_up, within_s: float = RESOLVE_S) -> NamedPlaces:
    """Judge where names lead. `hosts`: the host of each local backend that has no `own_host`. Blocks for at most
    `within_s`."""
    named = {backend: host for backend, host in hosts.items() if host and address_of(host) is None}
    addresses_of = _looked_up(frozenset(named.values()), lookup, within_s)
    problems, warnings, unresolved = [], [], []
    for backend, host in named.items():
        where, addresses = f"backends.{backend}", addresses_of.get(host, ())
        public = [address for address in addresses if not is_inside(address)]
        if not addresses:
            unresolved.append(ConfigProblem(where, 0, f"is local, and nobody knows where: {host} does not resolve"))
        elif len(public) == len(addresses):
            problems.append(
                ConfigProblem(where, 0, f"is local, but {host} leads to {public[0]}, which is public: {_FIX}")
            )
        elif public:
            warning = f"is local, but {host} leads to {public[0]}, too, which is public and not used"
            warnings.append(ConfigProblem(where, 0, warning))
    return NamedPlaces(tuple(problems), tuple(warnings), tuple(unresolved))


def _looked_up(hosts: Collection[str], lookup: Lookup, within_s: float) -> Mapping[str, tuple[str, ...]]:
    """Return the addresses of the names that resolve in time. A lookup can't be ended, so it has a daemon thread."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, tuple[str, ...]]] = queue.SimpleQueue()
    for host in hosts:
        waiting.put(host)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                host = waiting.get_nowait()
                try:
                    done.put((host, tuple(lookup(host))))
                except OSError:
                    done.put((host, ()))

    for _ in range(min(_LOOKUPS, len(hosts))):
        threading.Thread(target=work, name="places", daemon=True).start()
    resolved: dict[str, tuple[str, ...]] = {}
    ends_s = time.monotonic() + within_s
    with contextlib.suppress(queue.Empty):
        while len(resolved) < len(hosts):
            host, addresses = done.get(timeout=max(0.001, ends_s - time.monotonic()))
            resolved[host] = addresses
    while not waiting.empty():  # the time is up: nobody waits for the rest
        with contextlib.suppress(queue.Empty):
            waiting.get_nowait()
    return resolved
