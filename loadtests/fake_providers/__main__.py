"""`python -m loadtests.fake_providers`: run the fake providers on a free port of the loopback until a signal.

The first line of the output is their URL.
"""

from __future__ import annotations

import asyncio
import contextlib

from loadtests.fake_providers.server import FakeProviders


async def _serve() -> None:
    server = await asyncio.start_server(FakeProviders().serve, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
