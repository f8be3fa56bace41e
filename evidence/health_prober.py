"""Asks servers for /health all the time, in a process of its own, and reports the longest waits.

    python -m evidence.health_prober PORT...

For each line on its input it writes one JSON line: the longest wait in milliseconds and the number of answers since the
line before, by port.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

PAUSE_S = 0.004
_REQUEST = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Prober:
    """Probes one port on one connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waits_ms: list[float] = []

    def run(self) -> None:
        """Probe until the process ends."""
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                began_s = time.perf_counter()
                connection.sendall(_REQUEST)
                answer = b""
                while not _is_whole(answer):
                    data = connection.recv(65536)
                    if not data:
                        raise SystemExit(f"port {self._port} closed the connection")
                    answer += data
                self._waits_ms.append((time.perf_counter() - began_s) * 1000)
                time.sleep(PAUSE_S)

    def take(self) -> dict[str, float]:
        """Return the longest wait and the number of answers since the last call."""
        waits_ms, self._waits_ms = self._waits_ms, []
        return {"max_ms": round(max(waits_ms, default=0.0), 2), "n": len(waits_ms)}


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.lower().partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= lengths[0]


def main() -> None:
    """Probe the ports of the command line."""
    probers = {int(port): Prober(int(port)) for port in sys.argv[1:]}
    for prober in probers.values():
        threading.Thread(target=prober.run, daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps({port: prober.take() for port, prober in probers.items()}), flush=True)


if __name__ == "__main__":
    main()
