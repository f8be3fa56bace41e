"""Stand-ins for the APIs of clusters: Kubernetes' EndpointSlices with a watch, and others that answer JSON.

Kubernetes' answers are held against its own schema before they go out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

VERSION = "1.33"
TOKEN = "token-of-a-service-account"
Answer = tuple[int, Any, dict[str, str]]


def endpoint(address: str, uid: str, **conditions: bool) -> dict[str, Any]:
    """One endpoint; without a condition it is as Kubernetes defines a missing one."""
    target = {"kind": "Pod", "namespace": "llm", "name": f"engine-{uid}", "uid": uid}
    return {"addresses": [address], "conditions": conditions, "targetRef": target, "nodeName": "node-a"}


def endpoint_slice(
    name: str, *endpoints: dict[str, Any], family: str = "IPv4", ports: tuple[tuple[str, int], ...] = (("http", 8000),)
) -> dict[str, Any]:
    """A slice of the Service `engines` in `llm`, checked against Kubernetes' schema."""
    manifest = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "llm",
            "labels": {
                "kubernetes.io/service-name": "engines",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "resourceVersion": "1",
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports],
    }
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    return manifest


@dataclass(slots=True)
class HttpStub:
    """An HTTP server on a free port that answers by a function of method, path and body; one request a connection."""

    answer: Callable[[str, str, bytes], Answer]
    token: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for one in self._connections:
            one.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client left, or the test has ended
        finally:
            writer.close()
            self._connections.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
        self.asked.append((method, path))
        if self.token and f"authorization: Bearer {self.token}" not in head:
            await self.reply(writer, 401, {"kind": "Status", "code": 401}, {})
        else:
            await self.respond(method, path, body, writer)

    async def respond(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await self.reply(writer, *self.answer(method, path, body))

    @staticmethod
    async def reply(writer: asyncio.StreamWriter, status: int, value: Any, headers: dict[str, str]) -> None:
        """Send a whole answer."""
        content = b"" if value is None else json.dumps(value).encode()
        lines = "".join(f"{name}: {one}\r\n" for name, one in headers.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\nconnection: close\r\n{lines}\r\n"
        writer.write(head.encode() + content)
        await writer.drain()


class KubernetesApi(HttpStub):
    """EndpointSlices of one Service: a list, and watches that are told of every change."""

    def __init__(self, *slices: dict[str, Any]) -> None:
        super().__init__(lambda *_: (404, None, {}), TOKEN)
        self.slices = {one["metadata"]["name"]: one for one in slices}
        self.status = 200
        self._watchers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.version = 10

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def put(self, one: dict[str, Any]) -> None:
        """Add or change a slice, and tell the watches."""
        name = one["metadata"]["name"]
        self._tell("MODIFIED" if name in self.slices else "ADDED", one)
        self.slices[name] = one

    def delete(self, name: str) -> None:
        """Delete a slice, and tell the watches."""
        self._tell("DELETED", self.slices.pop(name))

    def tell(self, event: dict[str, Any] | None) -> None:
        """Send an event to the watches as it is; None ends them."""
        for queue in self._watchers:
            queue.put_nowait(event)

    def _tell(self, kind: str, one: dict[str, Any]) -> None:
        self.version += 1
        self.tell({"type": kind, "object": one})

    async def respond(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer a list or a watch."""
        place, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        assert method == "GET"
        assert place == "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices"
        assert query["labelSelector"] == ["kubernetes.io/service-name=engines"]
        if self.status != 200:
            await self.reply(writer, self.status, {"kind": "Status", "code": self.status}, {})
        elif "watch" not in query:
            listed = {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": str(self.version)},
                "items": list(self.slices.values()),
            }
            await self.reply(writer, 200, listed, {})
        else:
            await self._watch(writer)

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._watchers.append(events)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n")
        try:
            while (event := await events.get()) is not None:
                line = json.dumps(event).encode() + b"\n"
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            self._watchers.remove(events)
