"""Where the engines of a discovered backend are listed: one source per kind of `backends[].discover`."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from spillway_router.config.discovery import DiscoveryError, engine_urls
from spillway_router.config.found_engines import ray_engines, sky_engines
from spillway_router.config.service_name import ServiceName
from spillway_router.config.settings import BackendPart

if TYPE_CHECKING:
    from spillway_router.runtime.cluster_api import ClusterApi

RAY_LIMIT_S = 10.0
SKY_LIMIT_S = 60.0
"""SkyPilot's server asks its controller by SSH."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_URLS = {
    "kubernetes": "https://kubernetes.default.svc",
    "sky": "http://127.0.0.1:46580",
    "ray": "http://127.0.0.1:8265",
}
"""Where the API is, unless `discover_api` says so."""
REQUEST_ID = "x-skypilot-request-id"
REPLICA_ENGINE = "/spillway/engine"
"""Where a replica of `spillway serve --on ray` tells the address of its engine (spillway_server/on_ray/replica.py)."""
REPLICA_LIMIT_S = 3.0


class EngineSource(Protocol):
    """A list of engines that is kept elsewhere."""

    async def engines(self) -> tuple[str, ...]:
        """Return the base URLs of the engines that are listed now. Raises OSError, UnicodeError or DiscoveryError."""
        ...

    async def close(self) -> None:
        """Let go of what it holds; harmless when repeated."""
        ...


def source_of(part: BackendPart, on_change: Callable[[], None]) -> EngineSource:
    """Return the source of a discovered backend. `on_change` is called where a source knows of a change by itself."""
    place = part.discover_from
    if part.discover == "file":
        return FileSource(Path(place))
    if part.discover == "dns":
        return DnsSource(place)
    # Imported here, since most routers discover nothing by an API.
    from spillway_router.runtime.cluster_api import ApiPlace, ClusterApi
    from spillway_router.runtime.slice_watch import SliceWatch

    kind = str(part.discover)
    token, authority = part.discover_token_file, part.discover_ca_file
    if kind == "kubernetes" and not part.discover_api:
        token = token or SERVICE_ACCOUNT / "token"
        authority = authority or SERVICE_ACCOUNT / "ca.crt"
    api = ClusterApi(ApiPlace(part.discover_api or API_URLS[kind], token, authority))
    if kind == "kubernetes":
        return SliceWatch(api, ServiceName.of(place), on_change)
    return SkySource(api, place) if kind == "sky" else RaySource(api, place)


class FileSource:
    """The lines of a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def engines(self) -> tuple[str, ...]:
        text = await asyncio.to_thread(self._file.read_text, encoding="utf-8")
        return engine_urls(text.splitlines())

    async def close(self) -> None: ...


class DnsSource:
    """The addresses of a name, with one port."""

    def __init__(self, place: str) -> None:
        self._host, _, self._port = place.rpartition(":")

    async def engines(self) -> tuple[str, ...]:
        port, loop = self._port, asyncio.get_running_loop()
        answers = await loop.getaddrinfo(self._host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        hosts = sorted({str(address[0]) for *_, address in answers})
        return engine_urls(f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts)

    async def close(self) -> None: ...


class SkySource:
    """The replicas of a SkyPilot service. The API server takes a request, and gives its result when asked for it."""

    def __init__(self, api: ClusterApi, service: str) -> None:
        self._api = api
        self._service = service

    async def engines(self) -> tuple[str, ...]:
        asked = {"service_names": [self._service]}
        _, headers = await self._api.answer("POST", "/serve/status", SKY_LIMIT_S, asked)
        number = headers.get(REQUEST_ID, "")
        if not number:
            raise DiscoveryError("SkyPilot's API server names no request; check discover_api")
        result = await self._api.json("GET", f"/api/get?request_id={quote(number)}", SKY_LIMIT_S)
        try:
            if result["status"] != "SUCCEEDED":
                raise DiscoveryError(f"SkyPilot's status request ended as {result['status']}")
            services = json.loads(result["return_value"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DiscoveryError):
                raise
            raise DiscoveryError(f"SkyPilot's result can't be read: {error!r}") from error
        return sky_engines(services, self._service)

    async def close(self) -> None:
        await self._api.close()


class RaySource:
    """The replicas, or the proxies, of a Ray Serve application, by Ray's dashboard.

    A replica that only runs an engine (`spillway serve --on ray`) says where that is, and is replaced by it: then no
    token passes through Ray. Any other one is an engine by itself.
    """

    def __init__(self, api: ClusterApi, application: str) -> None:
        self._api = api
        self._application = application
        self._behind: dict[str, str] = {}

    async def engines(self) -> tuple[str, ...]:
        details = await self._api.json("GET", "/api/serve/applications/", RAY_LIMIT_S)
        replicas = ray_engines(details, self._application)
        asked = await asyncio.gather(*(self._engine_of(url) for url in replicas))
        self._behind = {url: engine for url, engine in zip(replicas, asked, strict=True) if engine}
        return engine_urls(self._behind.values())

    async def _engine_of(self, replica: str) -> str:
        """Return the engine's address that a replica tells, or its own; "" for one that does not answer yet."""
        from spillway_router.runtime.cluster_api import ApiPlace, ClusterApi, StatusError

        if replica in self._behind:
            return self._behind[replica]
        place = ClusterApi(ApiPlace(replica.removesuffix("/v1")))
        try:
            return str((await place.json("GET", REPLICA_ENGINE, REPLICA_LIMIT_S))["url"])
        except StatusError:
            return replica
        except DiscoveryError as error:
            return replica if isinstance(error.__cause__, ValueError) else ""
        except (KeyError, TypeError):
            return replica
        finally:
            await place.close()

    async def close(self) -> None:
        await self._api.close()
