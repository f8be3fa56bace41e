"""Child processes that never outlive the demo: they log to a file and are stopped with their descendants."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_KILL_WAIT_S = 10.0


class ChildError(Exception):
    """A child process could not be started, or ended early; the message ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process and its log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Check that the process still runs.

        Raises:
            ChildError: it has ended.
        """
        code = self.process.poll()
        if code is not None:
            raise ChildError(f"{self.name} ended with exit status {code}. Its last words:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, patience_s: float) -> tuple[int, tuple[str, ...]]:
        """Send SIGTERM, wait up to `patience_s` seconds, then kill whatever is left of the process and its descendants.

        This blocks, so that no cancellation cuts it short; a second Ctrl-C ends the wait and kills at once. Another
        call is harmless. Return the exit status (negative: killed by that signal) and the names of the killed
        processes.
        """
        family = _descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            killed = self._reap(family)
        return self.process.wait(_KILL_WAIT_S), killed

    def _reap(self, family: Sequence[psutil.Process]) -> tuple[str, ...]:
        _, left = psutil.wait_procs(family, timeout=1.0)
        names = []
        for process in left:
            try:
                names.append(process.name())
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self.process.poll() is None:
            names.append(self.name)
            self.process.kill()
        psutil.wait_procs(left, timeout=_KILL_WAIT_S)
        return tuple(names)


def start(name: str, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Child:
    """Start a child in a session of its own, so that Ctrl-C reaches only the demo, which then stops it in order.

    Raises:
        ChildError: the program can't be started.
    """
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )
    except OSError as error:
        raise ChildError(f"can't start {name} ({' '.join(command)}): {error}") from error
    return Child(name, process, log)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
