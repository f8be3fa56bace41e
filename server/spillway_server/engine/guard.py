"""A small process between the supervisor and vLLM, so that no part of vLLM outlives the supervisor.

Usage: python guard.py GRACE_SECONDS COMMAND...      (standard library only; run as a file, in its own session)

vLLM consists of several processes. The guard adopts all of them (child subreaper) and watches its standard input, a
pipe whose other end the supervisor holds.

1. The guard passes SIGTERM on to vLLM's main process.
2. When the pipe closes, the supervisor is gone, however it died: vLLM gets SIGTERM, and SIGKILL after the grace period.
3. When vLLM's main process has ended, the guard kills the remaining children and exits as vLLM did (128 + n for signal
n).

If the guard itself is killed, the kernel sends SIGTERM to vLLM (parent-death signal).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _descendants(pid: int) -> list[int]:
    """Return all living descendants of a process, adopted ones included, deepest last."""
    try:
        listing = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [below for word in listing for below in (int(word), *_descendants(int(word)))]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _reap(main: int) -> int | None:
    """Collect every child that has ended; return the main process's wait status once it is among them."""
    status = None
    while True:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == main:
            status = code


def _clear(seconds: float) -> None:
    """Kill and collect the remaining descendants until none is left or the time is over."""
    deadline = time.monotonic() + seconds
    while (remaining := _descendants(os.getpid())) and time.monotonic() < deadline:
        _kill(remaining)
        _reap(0)
        time.sleep(0.02)


def _exit_status(status: int) -> int:
    """Return the exit status that repeats a wait status."""
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    # 128 + n instead of the signal itself: SIGILL or SIGSEGV would leave a core dump of the guard as well.
    return 128 + number


def watch(main: int, grace: float, wakeup: int) -> int:
    """Wait until the main process has ended and return its wait status."""
    deadline: float | None = None
    pipe_open = True
    while (status := _reap(main)) is None:
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([wakeup, *([0] if pipe_open else [])], [], [], timeout_s)
        if wakeup in ready:
            signals = os.read(wakeup, 64)
            if signal.SIGTERM in signals or signal.SIGINT in signals:
                os.kill(main, signal.SIGTERM)
        if pipe_open and 0 in ready and not os.read(0, 64):
            pipe_open, deadline = False, time.monotonic() + grace
            os.kill(main, signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            _kill([main, *_descendants(main)])
            deadline = None
    return status


def main() -> int:
    """Start the command, watch it, and clean up after it."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)  # noqa: PLW1509
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)
        return 127
    status = watch(engine.pid, grace, read_end)
    _clear(5.0)
    return _exit_status(status)


if __name__ == "__main__":
    sys.exit(main())
