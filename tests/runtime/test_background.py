"""The order in which background services start and stop, and that none of them keeps the others running."""

from __future__ import annotations

import asyncio
import logging

import pytest

from spillway_router.runtime.background import Background, Service


class Told:
    """Services that note what happens to them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def service(self, name: str, problem: BaseException | None = None) -> Service:
        async def stop() -> None:
            self.calls.append(f"-{name}")
            if problem is not None:
                raise problem

        return Service(name, stop, lambda: self.calls.append(f"+{name}"))


def test_services_stop_in_the_reverse_order_of_their_start() -> None:
    told = Told()

    async def stop() -> None:
        told.calls.append("-connections")

    background = Background(told.service("ledger"), Service("connections", stop), told.service("pacer"))
    background.start()
    assert told.calls == ["+ledger", "+pacer"]
    asyncio.run(background.stop())
    assert told.calls[2:] == ["-pacer", "-connections", "-ledger"]


def test_a_service_that_fails_is_told_and_the_others_stop(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    asyncio.run(
        Background(told.service("ledger"), told.service("pacer", ValueError("odd")), told.service("days")).stop()
    )
    assert told.calls == ["-days", "-pacer", "-ledger"]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "pacer: stopped with an error")
    assert "odd" in str(record.exc_info)


def test_a_service_that_hangs_is_told_and_the_others_stop(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    async def hang() -> None:
        await asyncio.Event().wait()

    asyncio.run(Background(told.service("ledger"), Service("pacer", hang), told.service("days"), stop_s=0.01).stop())
    assert told.calls == ["-days", "-ledger"]
    assert [record.getMessage() for record in caplog.records] == ["pacer: not stopped within 0.01 s, left behind"]


def test_being_cancelled_does_not_keep_the_others_running() -> None:
    told = Told()
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def cancelled() -> None:
        stopping = asyncio.ensure_future(Background(told.service("ledger"), Service("pacer", wait)).stop())
        await waiting.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping

    asyncio.run(cancelled())
    assert told.calls == ["-ledger"]
