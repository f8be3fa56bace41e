"""Follows the EndpointSlices of one Service by Kubernetes' API: a list, and then a watch from its version on.

The list says everything, the watch what changes; each watch is short, and the next begins with a new list, so that a
change that was missed for whatever reason is known a minute later. Where the API is away, the engines stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from spillway_router.aio.tasks import end
from spillway_router.config.discovery import DiscoveryError
from spillway_router.config.found_engines import kubernetes_engines
from spillway_router.config.service_name import ServiceName
from spillway_router.runtime.cluster_api import ClusterApi

WATCH_S = 60
"""How long one watch goes on, in seconds."""
LIST_LIMIT_S = 10.0
SILENCE_S = WATCH_S + 15.0
"""After so many seconds without a byte a connection is given up; a watch should have ended by then."""
MOST_SLICES = 1000


class SliceWatch:
    """The engines behind one Service. `on_change` is called when they may have changed, and when a watch has ended."""

    def __init__(self, api: ClusterApi, service: ServiceName, on_change: Callable[[], None]) -> None:
        self._api = api
        self._service = service
        self._on_change = on_change
        self._slices: dict[str, Mapping[str, Any]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def engines(self) -> tuple[str, ...]:
        """Return the base URLs of the engines now. Lists them anew unless a watch is running.

        Raises OSError or DiscoveryError.
        """
        if self._watching is None or self._watching.done():
            version = await self._list()
            self._watching = asyncio.get_running_loop().create_task(self._watch(version), name="endpoint slices")
        return kubernetes_engines(self._slices.values(), self._service)

    async def close(self) -> None:
        """Stop to watch; harmless when repeated."""
        watching, self._watching = self._watching, None
        await end(watching)
        await self._api.close()

    async def _list(self) -> str:
        """Read all slices; return the version from which on a watch says what changes."""
        answer = await self._api.json("GET", self._path(), LIST_LIMIT_S)
        try:
            items = {str(one["metadata"]["name"]): one for one in answer["items"]}
            version = str(answer["metadata"]["resourceVersion"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DiscoveryError(f"the API's list of EndpointSlices can't be read: {error!r}") from error
        if not items:
            raise DiscoveryError(
                f"there is no EndpointSlice of a Service {self._service.name} in {self._service.namespace}; "
                "check the name in discover_from"
            )
        self._slices = items
        return version

    async def _watch(self, version: str) -> None:
        """Follow the changes until the watch ends, for whatever reason; the next look lists again."""
        watch = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        try:
            async for event in self._api.lines(self._path(watch), SILENCE_S):
                if not self._heeds(event):
                    return
                self._on_change()
        except (OSError, DiscoveryError, KeyError, TypeError, AttributeError):
            pass  # the next list says what is wrong, if it still is
        finally:
            if self._watching is not None:
                self._on_change()

    def _heeds(self, event: Mapping[str, Any]) -> bool:
        """Take a change over; return False if everything has to be listed again."""
        kind, item = str(event["type"]), event["object"]
        if kind == "BOOKMARK":
            return True
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return False  # ERROR: the version is too old, as a rule (410)
        name = str(item["metadata"]["name"])
        if kind == "DELETED":
            self._slices.pop(name, None)
        elif len(self._slices) < MOST_SLICES or name in self._slices:
            self._slices[name] = item
        return True

    def _path(self, more: Mapping[str, str] | None = None) -> str:
        query = urlencode({"labelSelector": f"kubernetes.io/service-name={self._service.name}", **(more or {})})
        return f"/apis/discovery.k8s.io/v1/namespaces/{quote(self._service.namespace)}/endpointslices?{query}"
