"""GPUs through an exact fake of NVML. These tests need no GPU, and prove nothing about a real one."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from spillway_router.signals import nvml
from spillway_router.signals.gpu import GpuReading, GpuTelemetry, GpuVerdict, gpu_verdict, throttle_tokens
from spillway_router.signals.nvml import GpuSampler, Nvml, NvmlReader, NvmlSettings, load_nvml


class FakeError(Exception):
    """An error like pynvml's, with a number and a text."""

    def __init__(self, value: int, text: str = "failed") -> None:
        super().__init__(text)
        self.value = value


NOT_SUPPORTED, TIMEOUT, LOST = 3, 10, 15


@dataclass
class FakeNvml:
    """An NVML with `count` A100s. `fails` maps the name of a call to the error number that it raises."""

    count: int = 1
    fails: dict[str, int] = field(default_factory=dict)
    events: list[SimpleNamespace] = field(default_factory=list)
    throttle_bits: int = 0
    clock_mhz: int = 1410
    ecc: int = 3
    hold: threading.Event | None = None
    calls: list[str] = field(default_factory=list)
    NVMLError: type[Exception] = FakeError

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise FakeError(self.fails[name], f"{name} failed")

    def nvmlInit(self) -> None:  # noqa: N802
        if self.hold is not None:
            self.hold.wait(10)
        self._call("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call("shutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._call("count")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        self._call("handle")
        return SimpleNamespace(index=index)

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:  # noqa: N802
        self._call("name")
        return b"NVIDIA A100-SXM4-80GB"

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        self._call("utilisation")
        return SimpleNamespace(gpu=72, memory=40)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        self._call("memory")
        return SimpleNamespace(used=60_000_000_000, total=85_899_345_920, free=1)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:  # noqa: N802
        self._call("temperature")
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        self._call("power")
        return 287_500

    def nvmlDeviceGetClockInfo(self, handle: Any, clock: int) -> int:  # noqa: N802
        self._call("clock")
        return self.clock_mhz

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, clock: int) -> int:  # noqa: N802
        self._call("max clock")
        return 1410

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:  # noqa: N802
        self._call("throttle")
        return self.throttle_bits

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: int, counter: int) -> int:  # noqa: N802
        self._call("ecc")
        return self.ecc

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:  # noqa: N802
        if handle.index < 0:
            raise FakeError(LOST)
        return SimpleNamespace(busId=f"0000:0{handle.index}:00.0")

    def nvmlEventSetCreate(self) -> Any:  # noqa: N802
        self._call("events")
        return object()

    def nvmlDeviceRegisterEvents(self, handle: Any, events: int, event_set: Any) -> None:  # noqa: N802
        self._call("register")

    def nvmlEventSetWait_v2(self, event_set: Any, timeout_ms: int) -> Any:  # noqa: N802
        if not self.events:
            raise FakeError(TIMEOUT)
        return self.events.pop(0)

    def nvmlEventSetFree(self, event_set: Any) -> None:  # noqa: N802
        self._call("free")


def xid(number: int, index: int = 0) -> SimpleNamespace:
    return SimpleNamespace(device=SimpleNamespace(index=index), eventType=8, eventData=number)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def reader(library: Nvml, clock: Clock | None = None) -> NvmlReader:
    return NvmlReader(lambda: library, NvmlSettings(), clock or Clock())


FULL = GpuReading(
    index=0,
    name="NVIDIA A100-SXM4-80GB",
    utilisation=0.72,
    memory_used_bytes=60_000_000_000,
    memory_total_bytes=85_899_345_920,
    temperature_c=61.0,
    power_w=287.5,
    sm_clock_mhz=1410.0,
    sm_clock_max_mhz=1410.0,
    throttle=(),
    xid_errors=(),
)


def test_the_binding_fits_the_protocol() -> None:
    import pynvml

    names = [name for name in vars(Nvml) if name.startswith("nvml")] + ["NVMLError"]
    assert [name for name in names if not hasattr(pynvml, name)] == []


def test_every_value_is_read() -> None:
    assert reader(FakeNvml()).read() == GpuTelemetry(True, (FULL,))


def test_two_gpus() -> None:
    telemetry = reader(FakeNvml(count=2)).read()
    assert [reading.index for reading in telemetry.readings] == [0, 1]


def test_a_value_that_a_gpu_does_not_report_is_none() -> None:
    names = ("name", "utilisation", "memory", "temperature", "power", "clock", "max clock", "throttle", "events")
    telemetry = reader(FakeNvml(fails=dict.fromkeys(names, NOT_SUPPORTED))).read()
    assert telemetry == GpuTelemetry(True, (GpuReading(index=0, name="unknown"),))
    assert gpu_verdict(telemetry.readings[0]) == GpuVerdict(True, 1.0, ())


def test_the_binding_is_imported_once_the_driver_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvml, "_DRIVER_LIBRARY", "libno-such-driver.so.1")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    gpus = NvmlReader(load_nvml, NvmlSettings(), Clock())
    assert gpus.read() == GpuTelemetry(False, (), "no NVIDIA driver")
    assert "pynvml" not in sys.modules
    monkeypatch.setattr(nvml, "_DRIVER_LIBRARY", "libc.so.6")
    gpus.read()
    assert "pynvml" in sys.modules


def test_without_the_binding_telemetry_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_DRIVER_LIBRARY", "libc.so.6")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    telemetry = NvmlReader(load_nvml, NvmlSettings(), Clock()).read()
    assert telemetry == GpuTelemetry(False, (), "nvidia-ml-py is not installed")


def test_without_driver_or_gpu_telemetry_is_down() -> None:
    assert reader(FakeNvml(fails={"init": 12})).read() == GpuTelemetry(False, (), "NVML: init failed")
    library = FakeNvml(count=0)
    assert reader(library).read() == GpuTelemetry(False, (), "no NVIDIA GPU")
    assert library.calls[-1] == "shutdown"


def test_a_lost_gpu_is_unhealthy_and_nvml_is_reopened() -> None:
    library = FakeNvml()
    gpus = reader(library)
    assert gpus.read().up
    library.fails["power"] = LOST
    telemetry = gpus.read()
    assert telemetry == GpuTelemetry(False, (GpuReading(0, "lost", lost=True),), "NVML: power failed")
    assert gpu_verdict(telemetry.readings[0]) == GpuVerdict(False, 1.0, ("GPU 0 is gone",))
    assert library.calls[-2:] == ["free", "shutdown"]
    del library.fails["power"]
    assert gpus.read() == GpuTelemetry(True, (FULL,))
    assert library.calls.count("init") == 2
    gpus.close()
    gpus.close()
    assert library.calls.count("shutdown") == 2


def test_xids_are_reported_of_their_gpu_for_a_while() -> None:
    library, clock = FakeNvml(count=2), Clock()
    gpus = reader(library, clock)
    library.events = [xid(79, 1), xid(13, 1), SimpleNamespace(device=None, eventType=1, eventData=0)]
    assert [r.xid_errors for r in gpus.read().readings] == [(), (79, 13)]
    clock.now = 299.0
    assert [r.xid_errors for r in gpus.read().readings] == [(), (79, 13)]
    clock.now = 301.0
    assert [r.xid_errors for r in gpus.read().readings] == [(), ()]


def test_an_xid_of_a_gpu_without_an_address_counts_for_all() -> None:
    library = FakeNvml(count=2)
    library.events = [xid(79, -1)]
    assert [r.xid_errors for r in reader(library).read().readings] == [(79,), (79,)]


@pytest.mark.parametrize(
    ("reading", "verdict"),
    [
        (GpuReading(0, "g"), GpuVerdict(True, 1.0, ())),
        # An idle GPU clocks down without a reason and is not slower for it.
        (GpuReading(0, "g", sm_clock_mhz=210, sm_clock_max_mhz=1410), GpuVerdict(True, 1.0, ())),
        (
            GpuReading(0, "g", sm_clock_mhz=705, sm_clock_max_mhz=1410, throttle=("thermal",)),
            GpuVerdict(True, 0.5, ("thermal",)),
        ),
        (
            GpuReading(0, "g", sm_clock_mhz=10, sm_clock_max_mhz=1410, throttle=("power", "hw")),
            GpuVerdict(True, 0.1, ("power", "hw")),
        ),
        (
            GpuReading(0, "g", sm_clock_mhz=1500, sm_clock_max_mhz=1410, throttle=("power",)),
            GpuVerdict(True, 1.0, ("power",)),
        ),
        (
            GpuReading(0, "g", sm_clock_mhz=1, sm_clock_max_mhz=0, throttle=("power",)),
            GpuVerdict(True, 1.0, ("power",)),
        ),
        (GpuReading(0, "g", throttle=("hw",)), GpuVerdict(True, 1.0, ("hw",))),
        (GpuReading(0, "g", xid_errors=(31, 31, 43)), GpuVerdict(True, 1.0, ("xid 31", "xid 43"))),
        (GpuReading(0, "g", xid_errors=(31, 79)), GpuVerdict(False, 1.0, ("xid 31", "xid 79"))),
        (GpuReading(0, "g", utilisation=1.0), GpuVerdict(True, 1.0, ())),
    ],
)
def test_verdict(reading: GpuReading, verdict: GpuVerdict) -> None:
    assert gpu_verdict(reading) == verdict


@pytest.mark.parametrize(
    ("bits", "tokens"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2, ()),  # clocks set by the operator
        (0x4, ("power",)),
        (0x8, ("hw",)),
        (0x20, ("thermal",)),
        (0x48, ("thermal", "hw")),
        (0x80, ("power",)),
        (0xFF, ("thermal", "power", "hw")),
    ],
)
def test_throttle_tokens(bits: int, tokens: tuple[str, ...]) -> None:
    assert throttle_tokens(bits) == tokens


async def test_the_sampler_reports_readings_and_shuts_nvml_down() -> None:
    library = FakeNvml(throttle_bits=0x20, clock_mhz=705)
    readings: asyncio.Queue[GpuTelemetry] = asyncio.Queue()
    settings = NvmlSettings(interval_s=0.01)
    task = asyncio.create_task(
        GpuSampler(lambda: library, lambda reading, _: readings.put_nowait(reading), settings).run()
    )
    async with asyncio.timeout(5):
        for _ in range(3):
            telemetry = await readings.get()
            assert gpu_verdict(telemetry.readings[0]) == GpuVerdict(True, 0.5, ("thermal",))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert library.calls.count("init") == library.calls.count("shutdown") == 1


async def test_a_wedged_driver_is_reported_is_called_once_and_recovers() -> None:
    library = FakeNvml(hold=threading.Event())
    assert library.hold is not None
    sampler = GpuSampler(lambda: library, lambda *_: None, NvmlSettings(timeout_s=0.05))
    silence = GpuTelemetry(False, (), "NVML did not answer within 0.05 s")
    assert [await sampler.sample() for _ in range(3)] == [silence] * 3
    before = threading.active_count()
    await sampler.sample()
    assert threading.active_count() == before
    library.hold.set()
    async with asyncio.timeout(5):
        while not (telemetry := await sampler.sample()).up:
            pass
    assert telemetry == GpuTelemetry(True, (FULL,))
    assert library.calls.count("init") == 1


async def test_a_binding_that_does_not_fit_is_no_error() -> None:
    library = FakeNvml()
    library.nvmlDeviceGetCount = lambda: "two"  # type: ignore[method-assign,assignment,return-value]
    telemetry = await GpuSampler(lambda: library, lambda *_: None).sample()
    assert not telemetry.up
    assert telemetry.reason.startswith("NVML: TypeError: ")


def test_a_gpu_that_is_missing_from_the_count_is_lost_for_a_while() -> None:
    library, clock = FakeNvml(count=2), Clock()
    gpus = reader(library, clock)
    assert len(gpus.read().readings) == 2
    gpus.close()
    library.count = 1
    assert [reading.lost for reading in gpus.read().readings] == [False, True]
    clock.now += NvmlSettings().xid_memory_s + 1
    assert [reading.lost for reading in gpus.read().readings] == [False]
    library.count = 0
    gpus.close()
    telemetry = gpus.read()
    assert (telemetry.up, [reading.lost for reading in telemetry.readings]) == (False, [True])


def test_a_driver_that_was_replaced_says_nothing_of_the_gpu() -> None:
    library = FakeNvml()
    gpus = reader(library)
    assert gpus.read().up
    library.fails["name"], library.fails["init"] = 999, 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH
    for _ in range(2):
        telemetry = gpus.read()
        assert (telemetry.up, telemetry.readings) == (False, ())


def test_uncorrectable_memory_errors_count_from_the_first_reading_on() -> None:
    library, clock = FakeNvml(), Clock()
    gpus = reader(library, clock)
    assert gpu_verdict(gpus.read().readings[0]).healthy
    library.ecc += 1
    assert gpu_verdict(gpus.read().readings[0]) == GpuVerdict(False, 1.0, ("uncorrectable memory error",))
    clock.now += NvmlSettings().xid_memory_s + 1
    assert gpu_verdict(gpus.read().readings[0]).healthy
    library.ecc = 0  # the driver was loaded again
    assert gpu_verdict(gpus.read().readings[0]).healthy


ABSURD = (-1, 2**32 - 1, 2**64, float("nan"), float("inf"), "61", None, ...)


@pytest.mark.parametrize("value", ABSURD, ids=repr)
def test_absurd_values_are_none(value: Any) -> None:
    library: Any = FakeNvml()
    library.nvmlDeviceGetUtilizationRates = lambda _: SimpleNamespace(gpu=value)
    size = -1 if value == 2**32 - 1 else value  # 4 GiB is a size
    library.nvmlDeviceGetMemoryInfo = lambda _: SimpleNamespace(used=size, total=size)
    library.nvmlDeviceGetPowerUsage = lambda _: value
    library.nvmlDeviceGetTemperature = library.nvmlDeviceGetClockInfo = lambda *_: value
    library.nvmlDeviceGetMaxClockInfo = lambda *_: value
    library.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: value
    library.nvmlDeviceGetTotalEccErrors = lambda *_: value
    telemetry = reader(library).read()
    assert telemetry.up, telemetry.reason
    (reading,) = telemetry.readings
    assert reading == GpuReading(index=0, name="NVIDIA A100-SXM4-80GB", throttle=reading.throttle, xid_errors=())
    assert gpu_verdict(reading).rate_factor == 1.0


@pytest.mark.parametrize("count", [-1, 2**31, "two", None])
def test_an_absurd_number_of_gpus_is_a_failed_reading(count: Any) -> None:
    library: Any = FakeNvml()
    library.nvmlDeviceGetCount = lambda: count
    telemetry = reader(library).read()
    assert (telemetry.up, telemetry.readings) == (False, ())
    assert library.calls[-1] == "shutdown"


def test_an_old_binding_without_a_function_still_reads_the_rest() -> None:
    class OldNvml(FakeNvml):
        @property
        def nvmlDeviceGetTotalEccErrors(self) -> Any:  # noqa: N802
            raise AttributeError("nvmlDeviceGetTotalEccErrors")

    assert reader(OldNvml()).read() == GpuTelemetry(True, (FULL,))


def test_an_absurd_xid_is_none() -> None:
    library = FakeNvml(events=[xid(2**64 - 1), xid(0), xid(13)])
    assert reader(library).read().readings[0].xid_errors == (13,)
