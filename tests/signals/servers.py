"""Small real HTTP servers on free ports, which give set answers or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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
    open_now: int = 0
    open_most: int = 0
    close: Callable[[], None] = lambda: None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                length = 0
                while (header := await reader.readline()).strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                await reader.readexactly(length)
                path = line.split()[1].decode()
                self.requested.append(path)
                self.open_now += 1
                self.open_most = max(self.open_most, self.open_now)
                try:
                    await self.replies.get(path, reply("no such path", 404))(writer)
                finally:
                    self.open_now -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
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
