"""A relay with seeded faults, which shows that the benchmark's measurements can fail.

    python faulty_relay.py PORT UPSTREAM_PORT FAULT

FAULT is one of: `none`; `keeps-upstream` (it does not notice a client that left until the upstream has ended);
`buffers-all` (it reads the upstream as fast as it can, whatever the client takes); `loses-event` (it drops one event of
a stream); `burns-cpu` (5 ms of CPU per request).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: str) -> None:
    with contextlib.suppress(ConnectionError, OSError):
        while data := await reader.read(65536):
            if fault == "loses-event":
                data = data.replace(b'"content":"7 "', b'"content":""  ')
            if fault == "burns-cpu":
                _burn(0.005)
            if writer.is_closing():
                if fault != "keeps-upstream":
                    return
                continue
            writer.write(data)
            if fault not in ("buffers-all", "keeps-upstream"):
                await writer.drain()


def _burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


async def _serve(port: int, upstream_port: int, fault: str) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", upstream_port)
        up = asyncio.create_task(_copy(reader, upstream_writer, "none"))
        down = asyncio.create_task(_copy(upstream_reader, writer, fault))
        if fault == "keeps-upstream":
            await up
            # Only the upstream's end ends this; since it keeps its connection alive, wait for its answer.
            await asyncio.wait((down,), timeout=6)
        else:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        upstream_writer.close()
        writer.close()

    async with await asyncio.start_server(client, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
