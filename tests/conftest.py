"""Fixtures for every test: one real vLLM engine on the CPU with the demo model, started once per session."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_server.engine.events import EngineEvent, EngineReady
from spillway_server.engine.serve import ServeOptions, run_server
from spillway_server.obstacle import Obstacle
from tests.loop import TEST_LIMIT_S, run_test

ROOT = Path(__file__).resolve().parent.parent
ENGINE_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
START_LIMIT_S = 280.0

# How long an example takes depends on how busy the machine is.
settings.register_profile("spillway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spillway")


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """A real engine: `base_url` ends in /v1, `model` is the name it serves, `log_path` its log."""

    base_url: str
    model: str
    log_path: Path


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """Real vLLM with the demo model, started by our own supervisor; takes 30 to 80 s once, ends with the session."""
    with _serving(tmp_path_factory.mktemp("engine") / "engine.log") as running:
        yield running


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """The same for embeddings."""
    with _serving(tmp_path_factory.mktemp("embedder") / "engine.log", embedding=True) as running:
        yield running


@contextmanager
def _serving(log_path: Path, *, embedding: bool = False) -> Iterator[RunningEngine]:
    if not ENGINE_PYTHON.exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    options = ServeOptions(
        model="demo",
        port=0,
        engine_python=ENGINE_PYTHON,
        device="cpu",
        log_path=log_path,
        cache_root=ROOT / ".cache" / "vllm",
        embedding=embedding,
    )
    ready: Future[EngineReady] = Future()
    stopping: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def on_event(event: EngineEvent) -> None:
        if isinstance(event, EngineReady) and not ready.done():
            ready.set_result(event)

    async def serve() -> None:
        stop = asyncio.Event()
        stopping.set_result((asyncio.get_running_loop(), stop))
        ended = await run_server(options, on_event, stop)
        if not ready.done():
            why = ended if isinstance(ended, Obstacle) else Obstacle("the engine ended before it was ready", "")
            ready.set_exception(RuntimeError(f"{why.reason} {why.fix}"))

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="engine", daemon=True)
    thread.start()
    loop, stop = stopping.result(timeout=10)
    try:
        up = ready.result(timeout=START_LIMIT_S)
        yield RunningEngine(up.base_url, up.served_model, log_path)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=90)
    assert not thread.is_alive(), "the engine did not stop within 90 s"


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test elsewhere: the checkout may have a ledger, which a configuration in another folder must not miss."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Switch the garbage collector off; it knows only the objects that the test makes."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # what tests before left is not ours
        gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def no_unexpected_error(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test during which the router had a fault of its own, unless the test seeds one."""
    before = UNEXPECTED.counts.total()
    yield
    if request.node.get_closest_marker("unexpected_errors") is None:
        assert UNEXPECTED.counts.total() == before, f"an unexpected error in the router: {UNEXPECTED.latest!r}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on the loop that the router uses; `@pytest.mark.limit_s(N)` gives it another limit."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    limit = pyfuncitem.get_closest_marker("limit_s")
    run_test(
        lambda: pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}),
        limit_s=limit.args[0] if limit else TEST_LIMIT_S,
    )
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` runs beside the rest: the tests that use the engine above, and the load tests."""
    for item in items:
        own = getattr(getattr(item, "callspec", None), "params", ())  # a parameter may have the fixture's name
        if {"engine", "embedder"} & set(getattr(item, "fixturenames", ())) - set(own):
            item.add_marker(pytest.mark.engine)
        if {ROOT / "tests" / "loadtests", ROOT / "tests" / "demo"} & set(item.path.parents):
            item.add_marker(pytest.mark.load)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking through all tests and modules each time."""
    gc.collect()
    gc.freeze()
