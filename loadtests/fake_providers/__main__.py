"""`python -m loadtests.fake_providers`: run the tills on a free port of the loopback until a signal; line 1 is their
URL."""

from __future__ import annotations

import asyncio
import contextlib

from loadtests.fake_providers.server import Tills


async def _main() -> None:
    server = await asyncio.start_server(Tills().serve, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
