"""The order in which background services start and stop, and that none of them keeps the others running."""

from __future__ import annotations

import asyncio
import logging

import pytest

from spillway_router.runtime.background import Background, Service


class Journal:
    """Makes services that note their starts (+) and stops (-)."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def service(self, name: str, problem: BaseException | None = None) -> Service:
        async def stop() -> None:
            self.entries.append(f"-{name}")
            if problem is not None:
                raise problem

        return Service(name, stop, lambda: self.entries.append(f"+{name}"))

    def service_without_start(self, name: str) -> Service:
        return Service(name, self.service(name).stop)


async def hang() -> None:
    await asyncio.Event().wait()


async def test_services_stop_in_the_reverse_order_of_their_start() -> None:
    journal = Journal()
    background = Background(
        (journal.service("ledger"), journal.service_without_start("connections"), journal.service("pacer"))
    )
    background.start()
    assert journal.entries == ["+ledger", "+pacer"]
    await background.stop()
    assert journal.entries[2:] == ["-pacer", "-connections", "-ledger"]


@pytest.mark.unexpected_errors
async def test_a_service_that_fails_is_logged_and_the_others_stop(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    await Background(
        (journal.service("ledger"), journal.service("pacer", ValueError("odd")), journal.service("days"))
    ).stop()
    assert journal.entries == ["-days", "-pacer", "-ledger"]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "pacer stopped with an error")
    assert "odd" in str(record.exc_info)


async def test_a_service_that_hangs_is_logged_and_the_others_stop(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    await Background((journal.service("ledger"), Service("pacer", hang), journal.service("days")), stop_s=0.01).stop()
    assert journal.entries == ["-days", "-ledger"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["pacer did not stop within 0.01 s and is left behind"]


async def test_being_cancelled_does_not_keep_the_others_running() -> None:
    journal = Journal()
    stopping = asyncio.Event()

    async def hang_loudly() -> None:
        stopping.set()
        await hang()

    task = asyncio.ensure_future(Background((journal.service("ledger"), Service("pacer", hang_loudly))).stop())
    await stopping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.entries == ["-ledger"]
