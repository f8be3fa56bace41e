"""`python -m loadtests.tills`: run the tills on a free port of 127.0.0.1 until a signal; the first line is their URL."""

from __future__ import annotations

import asyncio

from loadtests.tills.server import Tills


async def _main() -> None:
    server = await asyncio.start_server(Tills().serve, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except KeyboardInterrupt:
        pass
