"""A real Redis or Valkey server for tests, with a folder of its own, on a Unix socket instead of a port.

It is the `redis-server` or `valkey-server` of the machine, as Debian's packages of these names install it. Without one,
Debian's package is fetched by apt, if that is there, and unpacked below `.cache` without being installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

START_TRIES = 500
TRY_EVERY_S = 0.02
STOP_LIMIT_S = 20.0
PROGRAMS = ("redis-server", "valkey-server")
PACKAGES = (
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "lua-bitop",
    "lua-cjson",
)
"""Debian's package of the server, and what it needs beyond a minimal system."""
CACHE = Path(__file__).resolve().parents[3] / ".cache" / "redis"
FETCH_LIMIT_S = 120.0


class RedisMissingError(Exception):
    """There is no server to run; the message says what to install."""


class RedisServer:
    """One server process. `redis_server` creates it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the server, as redis-py reads it."""
        return f"unix://{self._folder / 'redis.sock'}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        arguments = ["--port", "0", "--unixsocket", str(self._folder / "redis.sock"), "--dir", str(self._folder)]
        arguments += ["--save", "", "--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru"]
        libraries = self._program.parents[1] / "lib"
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries.glob("*-linux-gnu")))}
        self._process = subprocess.Popen(
            [str(self._program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        retry = Retry(ConstantBackoff(TRY_EVERY_S), START_TRIES, supported_errors=(RedisConnectionError,))
        with Redis.from_url(self.url, retry=retry) as client:
            client.ping()

    def freeze(self) -> None:
        """Stop the process without ending it: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill the server; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_LIMIT_S)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def find_program() -> Path:
    """Return the server's program. Raises RedisMissingError."""
    for name in PROGRAMS:
        program = shutil.which(name)
        if program is not None:
            return Path(program)
    unpacked = CACHE / "usr" / "bin" / "redis-check-rdb"  # the program of which redis-server is a link
    if not unpacked.exists():
        _unpack()
    return CACHE / "usr" / "bin" / "redis-server"


def _unpack() -> None:
    """Fetch Debian's packages and unpack them. Raises RedisMissingError."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ["apt-get", "download", *PACKAGES], cwd=folder, check=True, capture_output=True, timeout=FETCH_LIMIT_S
            )
            for package in sorted(Path(folder).glob("*.deb")):
                subprocess.run(["dpkg-deb", "-x", package, CACHE], check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise RedisMissingError("no Redis here: install Debian's redis-server or valkey-server") from error


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run a server while the block lasts. Raises RedisMissingError if there is none."""
    with tempfile.TemporaryDirectory(prefix="spillway-redis-") as folder:
        server = RedisServer(find_program(), Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
