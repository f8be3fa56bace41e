"""Where a backend is: whether its address may be called local, and whether its key travels in clear.

Names are not resolved, because an answer would hold for one moment: a name is judged by the catalogue of providers, and
an address by its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from spillway_router.config.settings import BackendPart
from spillway_router.providers.interface import CatalogueEntry
from spillway_router.proxy.request.media_urls import address_of, is_internal


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
            return Place(
                f"is local, but {host} is a public address: private content would go there, and cost nothing in the "
                "books. Set `local: false` with a price, or say in `own_host` why the machine is yours"
            )
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
