"""Small real HTTP servers on free ports, which give set answers or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from spillway_router.providers.catalogue import load_catalogue, target
from spillway_router.signals.engine_client import EngineClient

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def reply(body: str | bytes = "", status: int = 200, *, length: bool = True) -> Reply:
    """Return a reply with this body."""
    data = body.encode() if isinstance(body, str) else body

    async def write(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n"
        head += f"content-length: {len(data)}\r\n\r\n" if length else "connection: close\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        if not length:
            writer.close()

    return write


@contextmanager
def asking(url: str, key: str | None = None) -> Iterator[EngineClient]:
    """Give a client for the server of a base URL, and close it at the end of the block."""
    client = EngineClient(target(load_catalogue()["vllm"], url, key))
    try:
        yield client
    finally:
        client.close()


async def never(writer: asyncio.StreamWriter) -> None:
    """Accept the request and never answer."""
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter) -> None:
    """Answer without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        writer.write(b"# nothing\n" * 10_000)
        await writer.drain()


@dataclass
class Server:
    """A server with its reply for each path and the paths that were requested.

    `open_now` and `open_most` count the requests in progress.
    """

    url: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    close: Callable[[], None] = lambda: None

    async def drop_connections(self) -> None:
        """Close the connections, and go on listening."""
        for writer in tuple(self.writers):
            writer.close()
            await writer.wait_closed()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while line := await reader.readline():
                head: dict[str, str] = {}
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    head[name.lower()] = value.strip()
                await reader.readexactly(int(head.get("content-length", "0")))
                path = line.split()[1].decode()
                self.requested.append(path)
                self.heads.append(head)
                self.open_now += 1
                self.open_most = max(self.open_most, self.open_now)
                try:
                    await self.replies.get(path, reply("no such path", 404))(writer)
                finally:
                    self.open_now -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


@asynccontextmanager
async def serving(**replies: Reply) -> AsyncIterator[Server]:
    """Run a server; the keyword `health` is the reply of `/health`. `close()` ends it with all connections."""
    server = Server(replies={"/" + path: answer for path, answer in replies.items()})
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = "http://{}:{}".format(*listener.sockets[0].getsockname())

    def close() -> None:
        listener.close()
        for task in tasks:
            task.cancel()

    server.close = close
    try:
        yield server
    finally:
        close()
        await asyncio.gather(*tasks, return_exceptions=True)
