"""Reads GPUs through NVML (`nvidia-ml-py`) every two seconds, outside the event loop.

What loads the library is an argument, so that tests can pass an exact fake and a machine without a driver needs none. A
value that NVML does not have is None; a reading that fails as a whole is a `GpuTelemetry` with `up=False` and the
reason, never an error.

What a driver says is bounded where it comes in: a number that no GPU can have is None, like one that it does not
report. A GPU that was there and is gone is reported as lost for some minutes, like an XID, and after that only the
engine's own health decides. An NVML that fails in another way says nothing of the GPU.

A wedged driver can block a call for ever, and nothing can cancel it. Calls therefore run in a daemon thread of their
own: a worker of the loop's pool would keep the process from ending. While one call hangs, no second one is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from spillway_router.aio.periodic import Periodic, Rhythm, TimeSource
from spillway_router.signals.gpu import GpuReading, GpuTelemetry, throttle_tokens

T = TypeVar("T")

log = logging.getLogger("spillway.signals")

OnGpus = Callable[[GpuTelemetry, float], None]
"""Receives every reading and its time in monotonic seconds. It must not raise."""

_DRIVER_LIBRARY = "libnvidia-ml.so.1"
_TEMPERATURE_GPU = 0
_CLOCK_SM = 1
_EVENT_XID = 0x8
_ECC_UNCORRECTED, _ECC_VOLATILE = 1, 0
_MOST_GPUS = 64
"""More than any machine has. A larger count is an error of the driver."""
_MOST_XID = 1023
_MOST_MEMORY = 2**50
_HOTTEST_C, _MOST_POWER_W, _FASTEST_MHZ = 200.0, 10_000.0, 20_000.0


class Nvml(Protocol):
    """The part of pynvml that the router uses. Every call may raise `NVMLError`. Handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetClockInfo(self, handle: Any, clock: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetMaxClockInfo(self, handle: Any, clock: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: int, counter: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlEventSetCreate(self) -> Any: ...  # noqa: N802
    def nvmlDeviceRegisterEvents(self, handle: Any, events: int, event_set: Any) -> None: ...  # noqa: N802
    def nvmlEventSetWait_v2(self, event_set: Any, timeout_ms: int) -> Any: ...  # noqa: N802
    def nvmlEventSetFree(self, event_set: Any) -> None: ...  # noqa: N802


@dataclass(frozen=True, slots=True)
class NvmlSettings:
    """Times in seconds."""

    interval_s: float = 2.0
    timeout_s: float = 2.0
    xid_memory_s: float = 300.0
    """How long an XID, a memory error or a lost GPU is reported; after that the engine's own health says more."""
    retry_s: float = 60.0
    """Between attempts on a machine without a driver or a GPU."""


class NvmlMissingError(Exception):
    """This machine has no NVIDIA driver, or the binding is not installed. The message says which."""


LoadNvml = Callable[[], Nvml]
"""Returns the NVML binding, or raises NvmlMissingError."""


def load_nvml() -> Nvml:
    """Return the NVML binding of `nvidia-ml-py`.

    The binding takes more than one MiB of memory, so it is imported only where the driver's library is.
    """
    try:
        ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        raise NvmlMissingError("no NVIDIA driver") from None
    try:
        return cast(Nvml, importlib.import_module("pynvml"))
    except ImportError:
        raise NvmlMissingError("nvidia-ml-py is not installed") from None


class NvmlReader:
    """Reads all GPUs. It blocks and is for one thread at a time. NVML opens at the first reading and after a loss."""

    __slots__ = (
        "_clock", "_ecc_counts", "_ecc_errors", "_event_set", "_handles", "_library", "_load", "_present", "_settings",
        "_watched", "_xids",
    )  # fmt: skip

    def __init__(self, load: LoadNvml, settings: NvmlSettings, clock: Callable[[], float]) -> None:
        self._load = load
        self._library: Nvml | None = None
        self._settings = settings
        self._clock = clock
        self._handles: list[Any] | None = None
        self._event_set: Any = None
        self._watched: dict[str, int] = {}
        self._xids: deque[tuple[float, int, int]] = deque(maxlen=1024)
        self._ecc_counts: dict[int, int] = {}
        self._ecc_errors: deque[tuple[float, int, int]] = deque(maxlen=1024)
        self._present: dict[int, float] = {}
        """When each GPU was last there, by its index."""

    def read(self) -> GpuTelemetry:
        """Return a reading of all GPUs, or `up=False` and the reason."""
        try:
            library = self._library = self._library or self._load()
        except NvmlMissingError as error:
            return GpuTelemetry(False, (), str(error))
        try:
            handles = self._handles if self._handles is not None else self._open(library)
            if handles:
                self._drain_events(library)
            readings = [self._read_one(library, i, h) for i, h in enumerate(handles)]
        except Exception as error:
            # The handles may belong to a GPU that fell off the bus or to a replaced driver: reopen NVML next time.
            self._shut(library)
            lost = self._lost(0) if _is_gone(error) else ()
            return GpuTelemetry(False, lost, f"NVML: {_describe(error, library)}")
        if not handles:
            self._shut(library)
            return GpuTelemetry(False, self._lost(0), "no NVIDIA GPU")
        self._present |= dict.fromkeys(range(len(handles)), self._clock())
        return GpuTelemetry(True, (*readings, *self._lost(len(handles))))

    def _lost(self, count: int) -> tuple[GpuReading, ...]:
        """Return a reading for each GPU that was there in the last minutes and is not among the first `count` now.

        NVML numbers the GPUs that are there, so the one that is named lost may be another; all of them serve one
        engine.
        """
        since = self._clock() - self._settings.xid_memory_s
        self._present = {index: seen_at for index, seen_at in self._present.items() if seen_at > since}
        return tuple(GpuReading(index=i, name="lost", lost=True) for i in sorted(self._present) if i >= count)

    def _shut(self, library: Nvml) -> None:
        """Close after a failure. A binding that fails in another way than by NVMLError may do so here too."""
        try:
            self.close()
        except Exception as error:
            log.debug("NVML could not be shut down: %s", _describe(error, library))

    def close(self) -> None:
        """Shut NVML down; harmless when repeated."""
        library, opened = self._library, self._handles is not None
        event_set, self._event_set, self._handles, self._watched = self._event_set, None, None, {}
        if library is None or not opened:
            return
        with contextlib.suppress(library.NVMLError):
            if event_set is not None:
                library.nvmlEventSetFree(event_set)
        with contextlib.suppress(library.NVMLError):
            library.nvmlShutdown()

    def _open(self, library: Nvml) -> list[Any]:
        library.nvmlInit()
        self._handles = []  # NVML is open from here on, so that a failure below closes it
        count = library.nvmlDeviceGetCount()
        if not 0 <= count <= _MOST_GPUS:
            raise ValueError(f"{count} GPUs are not possible")
        self._handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        try:
            self._event_set = library.nvmlEventSetCreate()
        except library.NVMLError:
            return self._handles
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(library.NVMLError):
                library.nvmlDeviceRegisterEvents(handle, _EVENT_XID, self._event_set)
                self._watched[_bus_id(library, handle)] = index
        return self._handles

    def _drain_events(self, library: Nvml) -> None:
        if self._event_set is None or not self._watched:
            return
        monotonic_s = self._clock()
        for _ in range(64):  # a storm of events must not keep the reading from ending
            try:
                event = library.nvmlEventSetWait_v2(self._event_set, 0)
            except library.NVMLError:  # a timeout: there are no more events
                break
            if event.eventType == _EVENT_XID:
                index = self._watched.get(_bus_id(library, event.device))
                # A GPU that fell off the bus does not even have an address: count the event against all GPUs.
                indices = [index] if index is not None else list(self._watched.values())
                number = int(event.eventData)
                if 0 < number <= _MOST_XID:
                    self._xids.extend((monotonic_s, i, number) for i in indices)
        _forget_before(self._xids, monotonic_s - self._settings.xid_memory_s)

    def _count_ecc(self, index: int, count: int | None) -> int:
        """Return how many uncorrectable memory errors a GPU had in the last minutes. What it counted before the first
        reading is history."""
        monotonic_s = self._clock()
        if count is not None:
            more = count - self._ecc_counts.get(index, count)
            self._ecc_counts[index] = count
            if more > 0:
                self._ecc_errors.append((monotonic_s, index, more))
        _forget_before(self._ecc_errors, monotonic_s - self._settings.xid_memory_s)
        return sum(number for _, i, number in self._ecc_errors if i == index)

    def _read_one(self, library: Nvml, index: int, handle: Any) -> GpuReading:
        def ask(call: Callable[[], T]) -> T | None:
            try:
                return call()
            except library.NVMLError as error:
                if _is_lost(error):
                    raise
                return None
            except (
                AttributeError,
                TypeError,
                ValueError,
                ArithmeticError,
            ):  # an old binding lacks the function, or its value is odd
                return None

        def number(call: Callable[[], Any], most: float) -> float | None:
            return _bounded(ask(call), most)

        name = ask(lambda: library.nvmlDeviceGetName(handle))
        busy = number(lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu, 100.0)
        memory = ask(lambda: library.nvmlDeviceGetMemoryInfo(handle))
        total = number(lambda: memory.total, _MOST_MEMORY) if memory is not None else None
        used = number(lambda: memory.used, _MOST_MEMORY if total is None else total) if memory is not None else None
        power_mw = number(lambda: library.nvmlDeviceGetPowerUsage(handle), _MOST_POWER_W * 1000)
        bits = ask(lambda: int(library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
        ecc = number(lambda: library.nvmlDeviceGetTotalEccErrors(handle, _ECC_UNCORRECTED, _ECC_VOLATILE), float(2**53))
        watched = index in self._watched.values()
        return GpuReading(
            index=index,
            name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "unknown"),
            utilisation=None if busy is None else busy / 100,
            memory_used_bytes=None if used is None else int(used),
            memory_total_bytes=None if total is None else int(total),
            temperature_c=number(lambda: library.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU), _HOTTEST_C),
            power_w=None if power_mw is None else power_mw / 1000,
            sm_clock_mhz=number(lambda: library.nvmlDeviceGetClockInfo(handle, _CLOCK_SM), _FASTEST_MHZ),
            sm_clock_max_mhz=number(lambda: library.nvmlDeviceGetMaxClockInfo(handle, _CLOCK_SM), _FASTEST_MHZ),
            throttle=throttle_tokens(bits or 0),
            xid_errors=tuple(xid for _, i, xid in self._xids if i == index) if watched else None,
            ecc_errors=self._count_ecc(index, None if ecc is None else int(ecc)),
        )


class GpuSampler:
    """Reads all GPUs every `interval_s` seconds and reports the readings. `clock` is monotonic seconds."""

    __slots__ = ("_clock", "_on_gpus", "_pending", "_reader", "_settings", "_up")

    def __init__(
        self,
        load: LoadNvml,
        on_gpus: OnGpus,
        settings: NvmlSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or NvmlSettings()
        self._reader = NvmlReader(load, self._settings, clock)
        self._on_gpus = on_gpus
        self._clock = clock
        self._pending: asyncio.Future[GpuTelemetry] | None = None
        self._up = False

    async def run(self) -> None:
        """Sample until cancelled, then shut NVML down unless a call hangs in it."""
        try:
            rhythm = Rhythm(self._pause_s, from_start=True, longest_run_s=30.0)
            await Periodic("GPU sampler", rhythm, self._sample_and_report, time_source=TimeSource(self._clock)).run()
        finally:
            await self.close()

    def _pause_s(self) -> float:
        return self._settings.interval_s if self._up or self._hangs else self._settings.retry_s

    async def _sample_and_report(self) -> None:
        telemetry = await self.sample()
        self._up = telemetry.up
        self._on_gpus(telemetry, self._clock())

    async def sample(self) -> GpuTelemetry:
        """Return one reading; `up=False` if NVML does not answer in time, until the call that hangs returns."""
        if self._pending is None:
            self._pending = _in_daemon_thread(self._reader.read, "nvml")
        done, _ = await asyncio.wait({self._pending}, timeout=self._settings.timeout_s)
        if not done:
            return GpuTelemetry(False, (), f"NVML did not answer within {self._settings.timeout_s:g} s")
        answer, self._pending = self._pending, None
        try:
            return answer.result()
        except Exception as error:  # a binding and a driver that don't fit together; routing continues without them
            return GpuTelemetry(False, (), f"NVML: {type(error).__name__}: {error}")

    async def close(self) -> None:
        """Shut NVML down unless a call hangs in it."""
        limit = self._settings.timeout_s
        if self._pending is not None:
            await asyncio.wait({self._pending}, timeout=limit)
        if not self._hangs:
            await asyncio.wait({_in_daemon_thread(self._reader.close, "nvml-close")}, timeout=limit)

    @property
    def _hangs(self) -> bool:
        return self._pending is not None and not self._pending.done()


def gpus_unread(load: LoadNvml = load_nvml) -> str:
    """Return why the GPUs of this machine can't be read, as a phrase; "" if they can. It takes a few seconds at most,
    also where the driver hangs, and runs outside an event loop."""

    async def read_once() -> GpuTelemetry:
        sampler = GpuSampler(load, lambda _, __: None)
        try:
            return await sampler.sample()
        finally:
            await sampler.close()

    telemetry = asyncio.run(read_once())
    if telemetry.up and any(reading.utilisation is None for reading in telemetry.readings):
        return "a GPU does not report its utilisation"
    return telemetry.reason


def _in_daemon_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `call` in a thread that does not keep the process alive. Its result is lost if the loop ends first."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = call()
        except Exception as error:  # raised where the future is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits for the result
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _bus_id(library: Nvml, handle: Any) -> str:
    """Return what identifies a GPU: an event carries a handle object of its own, not the registered one."""
    try:
        bus_id = library.nvmlDeviceGetPciInfo(handle).busId
    except library.NVMLError:
        return ""
    return bus_id.decode("ascii", "replace") if isinstance(bus_id, bytes) else str(bus_id)


def _bounded(value: Any, most: float) -> float | None:
    """Return a number from 0 to `most`; None for anything else, as drivers report 2^32 - 1 where they know nothing."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= most else None


def _forget_before(events: deque[tuple[float, int, int]], monotonic_s: float) -> None:
    while events and events[0][0] < monotonic_s:
        events.popleft()


def _describe(error: Exception, library: Nvml) -> str:
    return str(error) if isinstance(error, library.NVMLError) else f"{type(error).__name__}: {error}"


def _is_gone(error: Exception) -> bool:
    """Return whether a GPU fell off the bus or needs a reset: NVML_ERROR_GPU_IS_LOST, RESET_REQUIRED."""
    return getattr(error, "value", None) in (15, 16)


def _is_lost(error: Exception) -> bool:
    """Return whether the device is gone, not only one value: NVML_ERROR_UNINITIALIZED, GPU_IS_LOST, RESET_REQUIRED,
    UNKNOWN."""
    return getattr(error, "value", None) in (1, 15, 16, 999)
