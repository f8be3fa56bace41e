"""The supervisor against a real process that behaves, crashes, hangs, ignores signals or leaves children behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from spillway_server.engine import events
from spillway_server.engine.client import EngineAddress
from spillway_server.engine.lifecycle import Rules
from spillway_server.engine.supervise import Intervals, Launch, Supervisor
from spillway_server.obstacle import Obstacle

FAKE = Path(__file__).parents[1] / "fake_engine.py"
QUICK = Rules(
    start_timeout_s=20.0, backoff_base_s=0.02, max_backoff_s=0.05, max_failures=3, drain_timeout_s=10.0, grace_s=5.0
)
LOOKS = Intervals(probe_s=0.02, drain_s=0.02, watch_s=0.05, stall_after_s=0.3, prove_after_s=0.5, prove_within_s=0.5)


class Run:
    """One supervised fake engine: everything it told, and a way to wait for the next event of a kind."""

    def __init__(
        self,
        folder: Path,
        rules: Rules = QUICK,
        uds: str | None = None,
        key: str | None = None,
        *,
        log_path: Path | None = None,
        broken: bool = False,
    ) -> None:
        self.folder = folder
        self.broken = broken
        self.seen: list[events.EngineEvent] = []
        self.stop = asyncio.Event()
        port = _free_port()
        where = ("--uds", uds) if uds else (str(port),)
        launch = Launch(
            argv=(sys.executable, str(FAKE), *where, str(folder)),
            env=dict(os.environ),
            address=EngineAddress(
                root_url="http://localhost" if uds else f"http://127.0.0.1:{port}",
                served_model="demo",
                uds=uds,
                api_key=key,
            ),
            log_path=log_path or folder / "engine.log",
        )
        self.supervisor = Supervisor(launch, self._tell, rules=rules, intervals=LOOKS, chance=lambda: 0.0)

    def _tell(self, event: events.EngineEvent) -> None:
        self.seen.append(event)
        if self.broken:
            raise BrokenPipeError

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_told(self, kind: type[events.EngineEvent], count: int = 1) -> None:
        await self.until(lambda: sum(isinstance(event, kind) for event in self.seen) >= count)

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "starts").read_text().split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _say(folder: Path, name: str, text: str = "") -> None:
    (folder / name).write_text(text)


async def test_start_generate_stop(tmp_path: Path) -> None:
    run = Run(tmp_path, key="secret")
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    run.stop.set()
    assert await task is None
    assert run.kinds() == [
        "EngineStarting",
        "EngineProgress",
        "EngineProgress",
        "EngineReady",
        "EngineUnready",
        "EngineDraining",
        "EngineStopped",
    ]
    request = json.loads((tmp_path / "asked").read_text())
    assert request["body"]["max_tokens"] == 1, "readiness is one generated token"
    assert request["key"] == "Bearer secret"
    assert "secret" not in str(run.seen)
    await run.until(lambda: all(_gone(pid) for pid in run.pids()))
    assert "Starting vLLM server" in (tmp_path / "engine.log").read_text()


async def test_unix_socket_and_its_stale_file(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    run = Run(tmp_path, uds=str(path))
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    run.stop.set()
    assert await task is None


async def test_crash_is_followed_by_a_restart(tmp_path: Path) -> None:
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    os.kill(run.pids()[0], signal.SIGKILL)
    await run.until_told(events.EngineReady, 2)
    run.stop.set()
    assert await task is None
    exited = next(event for event in run.seen if isinstance(event, events.EngineExited))
    assert exited.status == 137
    assert "SIGKILL" in exited.diagnosis.reason
    after = run.kinds()[run.kinds().index("EngineExited") :]
    assert after[:4] == ["EngineExited", "EngineUnready", "EngineRestarting", "EngineStarting"]
    assert len(run.pids()) == 2


async def test_gives_up_after_failures_in_a_row_and_says_why(tmp_path: Path) -> None:
    _say(tmp_path, "status", "1")
    _say(tmp_path, "last_words", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    run = Run(tmp_path)
    ended = await run.supervisor.run(run.stop)
    assert isinstance(ended, Obstacle)
    assert "too little memory" in ended.reason
    assert len(run.pids()) == 3
    waits = [event.wait_s for event in run.seen if isinstance(event, events.EngineRestarting)]
    assert waits == pytest.approx([0.01, 0.02])
    assert isinstance(run.seen[-1], events.EngineFailed)
    assert any("CUDA out of memory" in line for line in run.seen[-1].log_tail)


async def test_missing_command_is_told(tmp_path: Path) -> None:
    address = EngineAddress("http://127.0.0.1:9", "demo")
    launch = Launch(("/nowhere/vllm",), {}, address, tmp_path / "log")
    ended = await Supervisor(launch, lambda _: None, rules=QUICK, intervals=LOOKS).run(asyncio.Event())
    assert isinstance(ended, Obstacle)
    assert "could not be run" in ended.reason


async def test_drain_waits_for_requests_in_flight(tmp_path: Path) -> None:
    _say(tmp_path, "in_flight", "2")
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    run.stop.set()
    await run.until(lambda: events.EngineDraining(2) in run.seen)
    assert not _gone(run.pids()[0]), "two requests are still running"
    _say(tmp_path, "in_flight", "0")
    assert await task is None
    kinds = run.kinds()
    assert kinds.index("EngineUnready") < kinds.index("EngineDraining") < kinds.index("EngineStopped")
    assert events.EngineDraining(0) in run.seen


async def test_drain_has_a_bound_and_a_deaf_engine_is_killed(tmp_path: Path) -> None:
    _say(tmp_path, "in_flight", "1")
    _say(tmp_path, "deaf")
    run = Run(tmp_path, Rules(drain_timeout_s=0.2, grace_s=0.3))
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    run.stop.set()
    async with asyncio.timeout(15):
        assert await task is None
    # The kernel takes killed processes away in its own time.
    await run.until(lambda: all(_gone(pid) for pid in run.pids()))


@pytest.mark.parametrize("how", ["stuck", "waiting", "mute", "hung"])
async def test_hung_engine_is_replaced(tmp_path: Path, how: str) -> None:
    """Its counters stand still under work, its metrics are silent, or it is idle and generates no token."""
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    _say(tmp_path, how, "2")
    await run.until_told(events.EngineRestarting)
    (tmp_path / how).unlink()
    await run.until_told(events.EngineReady, 2)
    run.stop.set()
    assert await task is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e308", "-1", "x", "9" * 400])
async def test_absurd_metrics_do_not_end_the_watch(tmp_path: Path, value: str) -> None:
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    _say(tmp_path, "page", f"vllm:num_requests_running {value}\nvllm:num_requests_waiting {value}\n")
    await asyncio.wait_for(run.supervisor._client.activity(), 10)
    (tmp_path / "page").unlink()
    _say(tmp_path, "stuck")
    await run.until_told(events.EngineRestarting)
    run.stop.set()
    assert await task is None


async def test_an_engine_whose_log_can_not_be_written_goes_on(tmp_path: Path) -> None:
    """Nobody would read its pipe otherwise, and it would stop at the next line."""
    run = Run(tmp_path, log_path=Path("/dev/full"))
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    run.stop.set()
    assert await task is None
    assert run.kinds()[-1] == "EngineStopped"


async def test_a_listener_that_fails_does_not_end_the_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a terminal that was closed: printing to it raises."""
    run = Run(tmp_path, broken=True)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    os.kill(run.pids()[0], signal.SIGKILL)
    await run.until_told(events.EngineReady, 2)
    run.stop.set()
    assert await task is None
    assert "an event of the engine could not be reported: EngineReady" in caplog.text


async def test_stop_while_starting(tmp_path: Path) -> None:
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineStarting)
    run.stop.set()
    assert await task is None
    assert "EngineReady" not in run.kinds()


async def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    _say(tmp_path, "child")
    run = Run(tmp_path)
    task = asyncio.create_task(run.supervisor.run(run.stop))
    await run.until_told(events.EngineReady)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "EngineExited" not in run.kinds(), "our own doing is no crash"
    left = [*run.pids(), int((tmp_path / "child.pid").read_text())]
    await run.until(lambda: all(_gone(pid) for pid in left))


SUPERVISE = """
import asyncio, os, sys
from pathlib import Path
from spillway_server.engine.client import EngineAddress
from spillway_server.engine.supervise import Launch, Supervisor
fake, port, folder = sys.argv[1:]
launch = Launch((sys.executable, fake, port, folder), dict(os.environ),
                EngineAddress(f"http://127.0.0.1:{port}", "demo"), Path(folder, "log"))
asyncio.run(Supervisor(launch, lambda event: print(type(event).__name__, flush=True)).run(asyncio.Event()))
"""


def test_a_killed_supervisor_takes_the_engine_and_its_children_along(tmp_path: Path) -> None:
    _say(tmp_path, "child")
    command = [sys.executable, "-c", SUPERVISE, str(FAKE), str(_free_port()), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            if line.strip() == "EngineReady":
                break
        engine, child = int((tmp_path / "starts").read_text()), int((tmp_path / "child.pid").read_text())
        assert not _gone(engine)
        supervisor.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (_gone(engine) and _gone(child)):
        psutil.wait_procs([psutil.Process(pid) for pid in (engine, child) if psutil.pid_exists(pid)], timeout=0.1)
    assert _gone(engine)
    assert _gone(child), "a child in a session of its own is found through the guard"
