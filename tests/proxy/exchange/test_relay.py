"""The relay alone: packets of an upstream in, bytes of the client out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.proxy.exchange.scene import PacketUpstream, RecordingClient

from spillway_router.core.money.tariff import Usage
from spillway_router.providers.sse import Event
from spillway_router.providers.streams import ChatMonitor
from spillway_router.proxy.exchange.relay import Ending, Extension, HeldEvents, Relay, tail_bytes
from spillway_router.testing.streams import DONE, USAGE, chat, data, delta

WORD = chat("alpha")
OPENING = b"".join(WORD.events[:3])
"""Role and both pieces: what goes out as it comes."""
TAIL = b"".join(WORD.events[3:])
"""Finish, usage and [DONE]: what is held until the row is on disk."""


class Relayed:
    """A relay between an upstream whose packets the test cuts and a client that records."""

    def __init__(self, upstream: PacketUpstream, strip: Callable[[Event], Event] | None) -> None:
        self.upstream = upstream
        self.client = RecordingClient()
        self.monitor = ChatMonitor(1)
        self.relay = Relay(upstream.response, self.monitor, 5.0, done_follows=True, strip=strip)

    async def run(self) -> str | None:
        """Begin, open the client's stream, forward and finish: what broke the answer."""
        failure = await self.relay.begin()
        assert failure is None, failure
        self.client.begin_stream([], self.relay.opening())
        return await self.relay.forward_within(cast("Any", self.client), None)

    def tail(self) -> bytes:
        return b"".join(event.raw for event in self.relay.tail.events)


@asynccontextmanager
async def relaying(strip: Callable[[Event], Event] | None = None) -> AsyncIterator[Relayed]:
    upstream = PacketUpstream()
    try:
        yield Relayed(upstream, strip)
    finally:
        upstream.close()


@pytest.mark.parametrize("size", [1, 2, 7, 16, 61, 1000])
async def test_the_same_bytes_come_out_however_the_packets_are_cut(size: int) -> None:
    async with relaying() as relayed:
        running = asyncio.create_task(relayed.run())
        for start in range(0, len(WORD.body), size):
            relayed.upstream.packet(WORD.body[start : start + size])
            await asyncio.sleep(0)
        relayed.upstream.end()
        assert await running is None
        assert relayed.client.stream == OPENING
        assert relayed.tail() == TAIL
        assert relayed.monitor.usage == Usage(3, 2)


async def test_nothing_reaches_the_client_before_the_first_content() -> None:
    async with relaying() as relayed:
        beginning = asyncio.create_task(relayed.relay.begin())
        relayed.upstream.packet(WORD.events[0])
        await asyncio.sleep(0)
        assert not beginning.done()
        relayed.upstream.packet(WORD.events[1])
        assert await beginning is None
        assert relayed.relay.opening() == WORD.events[0] + WORD.events[1]
        assert relayed.client.stream == b""


async def test_an_answer_that_ends_before_its_content_is_an_outcome() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.events[0])
        relayed.upstream.end()
        outcome = await relayed.relay.begin()
        assert outcome is not None
        assert (outcome.kind, outcome.billed) == ("failed", True)


async def test_an_error_that_the_provider_reports_is_not_billed() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(data({"error": {"message": "no"}}))
        outcome = await relayed.relay.begin()
        assert outcome is not None
        assert (outcome.kind, outcome.billed) == ("failed", False)


async def test_a_whole_answer_to_a_request_for_a_stream_is_called_so() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(b'{"object": "chat.completion",')
        relayed.upstream.packet(b' "choices": []}')
        relayed.upstream.end()
        outcome = await relayed.relay.begin()
        assert outcome is not None
        assert (outcome.kind, outcome.detail) == ("failed", "a whole answer came instead of a stream")


async def test_a_byte_order_mark_hides_the_first_event_from_no_client() -> None:
    async with relaying() as relayed:
        running = asyncio.create_task(relayed.run())
        for part in (b"\xef\xbb", b"\xbf" + WORD.body):
            relayed.upstream.packet(part)
        relayed.upstream.end()
        assert await running is None
        assert relayed.client.stream + relayed.tail() == WORD.body


@pytest.mark.parametrize("events", [1, 2])
async def test_a_stream_that_ends_early_breaks_the_answer(events: int) -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(b"".join(WORD.events[: events + 1]))
        relayed.upstream.end()
        assert await relayed.run()
        assert relayed.client.stream == b"".join(WORD.events[: events + 1])


async def test_a_connection_that_breaks_is_no_stall() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.events[0] + WORD.events[1])
        running = asyncio.create_task(relayed.run())
        await asyncio.sleep(0)
        relayed.upstream.break_off()
        assert await running
        assert not relayed.relay.stalled


async def test_half_an_event_never_reaches_the_client() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.events[0] + WORD.events[1] + WORD.events[2][:-4])
        running = asyncio.create_task(relayed.run())
        await asyncio.sleep(0)
        relayed.upstream.end()
        assert await running
        assert relayed.client.stream == WORD.events[0] + WORD.events[1]


async def test_a_slow_client_holds_the_upstream_back() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.events[0] + WORD.events[1])
        relayed.client.slow = True
        running = asyncio.create_task(relayed.run())
        await asyncio.sleep(0)
        relayed.upstream.packet(WORD.events[2])
        await asyncio.sleep(0)
        assert relayed.client.stream == WORD.events[0] + WORD.events[1]
        relayed.client.caught_up.set()
        relayed.upstream.packet(TAIL)
        assert await running is None
        assert relayed.client.stream == OPENING


async def test_large_events_of_two_streams_end_in_different_turns_of_the_loop() -> None:
    large = delta({"content": "QUJD" * 200_000})
    turn, written_in = 0, []

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with relaying() as one, relaying() as other:
        counting = asyncio.create_task(count_turns())
        running = [asyncio.create_task(each.run()) for each in (one, other)]
        for each in (one, other):
            each.client.on_write = lambda data: written_in.append(turn) if len(data) > 500_000 else None
            for packet in (OPENING, large[:400_000], large[400_000:-1]):
                each.upstream.packet(packet)
                await asyncio.sleep(0)
        for each in (one, other):
            each.upstream.packet(large[-1:])
        for each in (one, other):
            each.upstream.packet(TAIL)
            each.upstream.end()
        assert await asyncio.gather(*running) == [None, None]
        counting.cancel()
        assert one.client.stream == other.client.stream == OPENING + large
        assert one.tail() == other.tail() == TAIL
        assert len(set(written_in)) == len(written_in) == 2


async def test_a_missing_done_is_no_failure_at_the_end_of_the_body() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(OPENING + WORD.events[3])
        relayed.upstream.end()
        assert await relayed.run() is None
        assert not relayed.relay.done_seen


@pytest.mark.parametrize("held", [b"", USAGE])
async def test_a_provider_that_hangs_after_the_finish_does_not_delay_it(held: bytes) -> None:
    """Only usage and [DONE] wait for the ledger row; the finishing event goes out although they don't come."""
    async with relaying() as relayed:
        sent = asyncio.Event()
        write = relayed.client.write

        def note(part: bytes) -> None:
            write(part)
            sent.set()

        relayed.client.write = note  # type: ignore[method-assign]
        relayed.upstream.packet(WORD.events[0] + WORD.events[1] + WORD.events[3] + held)
        running = asyncio.create_task(relayed.run())
        async with asyncio.timeout(60):
            await sent.wait()
        assert not running.done()
        assert relayed.client.stream == WORD.events[0] + WORD.events[1] + WORD.events[3]
        relayed.upstream.packet(DONE)
        assert await running is None
        assert relayed.tail() == held + DONE


async def test_hold_reads_on_until_there_is_enough() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.events[0] + WORD.events[1])
        assert await relayed.relay.begin() is None
        holding = asyncio.create_task(relayed.relay.hold(lambda: relayed.relay.events >= 3))
        await asyncio.sleep(0)
        assert not holding.done()
        relayed.upstream.packet(WORD.events[2])
        assert await holding is None
        assert relayed.relay.opening() == OPENING
        assert relayed.client.stream == b""


async def test_strip_changes_what_the_client_gets() -> None:
    def strip(event: Event) -> Event:
        return Event(event.raw.replace(b"alpha", b"beta"), event.name, event.data)

    async with relaying(strip) as relayed:
        relayed.upstream.packet(WORD.body)
        relayed.upstream.end()
        assert await relayed.run() is None
        assert relayed.client.stream == OPENING.replace(b"alpha", b"beta")


async def test_what_was_received_is_told_however_the_answer_stands() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(OPENING)
        assert await relayed.relay.begin() is None
        received = relayed.relay.received()
        assert (received.events, received.whole, received.usage, received.told) == (3, False, None, None)


async def test_the_usage_of_a_whole_answer_is_known_while_the_client_is_behind() -> None:
    async with relaying() as relayed:
        relayed.upstream.packet(WORD.body)
        relayed.upstream.end()
        assert await relayed.run() is None
        relayed.client.slow = True
        received = relayed.relay.received()
        assert received is not None
        assert received.usage == Usage(3, 2)


async def broken_off(relayed: Relayed, *packets: bytes) -> Usage | None:
    """Relay an answer that breaks off after these packets; return the usage that is all of it."""
    running = asyncio.create_task(relayed.run())
    for packet in packets:
        relayed.upstream.packet(packet)
        await asyncio.sleep(0)
    relayed.upstream.end()
    assert await running is not None
    received = relayed.relay.received()
    assert received is not None
    return received.usage


async def test_usage_that_came_last_counts_although_the_upstream_ended_without_a_finish() -> None:
    async with relaying() as relayed:
        assert await broken_off(relayed, *WORD.events[:2], USAGE, DONE) == Usage(3, 2)
    async with relaying() as relayed:
        assert await broken_off(relayed, *WORD.events[:2], USAGE) == Usage(3, 2)
    async with relaying() as relayed:
        assert await broken_off(relayed, *WORD.events[:2], USAGE, data({"error": {"message": "no"}})) == Usage(3, 2)


async def test_usage_before_content_is_not_all_of_a_broken_answer() -> None:
    async with relaying() as relayed:
        assert await broken_off(relayed, WORD.events[0], USAGE, WORD.events[1], DONE) is None


async def test_usage_before_bad_json_is_not_all_of_the_answer() -> None:
    async with relaying() as relayed:
        assert await broken_off(relayed, *WORD.events[:2], USAGE, b"data: {\n\n") is None


# the held end


def held(*events: bytes) -> HeldEvents:
    tail = HeldEvents([])
    for raw in events:
        tail.add(Event(raw, b"", raw.removeprefix(b"data: ").strip()))
    return tail


EXTENSION = Extension({"decision": "local"}, b"data: extension\n\n")
FINISH = delta({}, "stop")


@pytest.mark.parametrize(
    ("events", "ending", "expected"),
    [
        pytest.param((FINISH, USAGE, DONE), Ending(True, False, None, DONE), FINISH + USAGE + DONE, id="untouched"),
        pytest.param((FINISH, USAGE, DONE), Ending(False, True, None, DONE), FINISH + DONE, id="usage not asked for"),
        pytest.param((FINISH,), Ending(False, True, None, DONE), FINISH + DONE, id="the upstream left [DONE] out"),
        pytest.param(
            (FINISH, DONE),
            Ending(usage_asked=False, usage_added=True, cost_nano=None, closing=DONE, extension=EXTENSION),
            FINISH + EXTENSION.event + DONE,
            id="an extension without a usage event",
        ),
        pytest.param(
            (FINISH,),
            Ending(usage_asked=False, usage_added=False, cost_nano=None, closing=DONE, extension=EXTENSION),
            FINISH + EXTENSION.event + DONE,
            id="nor [DONE]",
        ),
    ],
)
def test_the_end_of_a_stream(events: tuple[bytes, ...], ending: Ending, expected: bytes) -> None:
    assert tail_bytes(held(*events), ending) == expected


def test_a_usage_event_carries_cost_and_extension() -> None:
    end = tail_bytes(
        held(FINISH, USAGE, DONE),
        Ending(usage_asked=True, usage_added=False, cost_nano=7000, closing=DONE, extension=EXTENSION),
    )
    assert b'"cost":7e-6' in end
    assert b'"spillway":{"decision":"local"}' in end
    assert EXTENSION.event not in end
