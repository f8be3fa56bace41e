"""Spans and metrics reach a collector over real sockets, join the traces on both sides, and hold no text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.receiver import Collector, collecting, values_of

from spillway_router.core.routing.model import RequestRecord
from spillway_router.telemetry.export import MOST_WAITING, TelemetryExport
from spillway_router.telemetry.spans import Place, SpanValues
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import cloud, local, pair, routing, settings

ANSWER = {"choices": [wire.message_choice({"content": "Left."})], "usage": wire.usage(11, 7)}
EVENTS = wire.event({"choices": [wire.delta_choice({"content": "Left."}, "stop")]}) + wire.DONE
SECRET = "the-patient-is-Jane-Doe"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def telemetry(collector: Collector, more: str = "") -> str:
    return (
        f"telemetry: {{otlp_url: '{collector.url}', headers: {{authorization: Bearer t0ken}}, interval_s: 60{more}}}\n"
    )


def by_kind(collector: Collector) -> tuple[Any, list[Any]]:
    """Return the one span of a request, and those of its attempts."""
    (server,) = [span for span in collector.spans if span.kind == 2]
    return server, [span for span in collector.spans if span.kind == 3]


async def test_the_spans_of_a_request_join_the_trace_of_its_client(tmp_path: Path) -> None:
    with collecting() as collector:
        async with pair(Answer.json(ANSWER), folder=tmp_path, more=telemetry(collector)) as (engine, _, router):
            reply = await router.chat(
                {"messages": [{"role": "user", "content": SECRET}]},
                traceparent=f"00-{TRACE}-{PARENT}-01",
                tracestate="shop=cart7",
            )
            assert reply.status_code == 200
    server, (attempt,) = by_kind(collector)
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert (attempt.trace_id.hex(), attempt.parent_span_id) == (TRACE, server.span_id)
    (seen,) = engine.seen
    assert seen.headers["traceparent"] == f"00-{TRACE}-{attempt.span_id.hex()}-01"
    assert seen.headers["tracestate"] == "shop=cart7"
    assert (server.name, attempt.name) == ("chat auto", "chat m")
    assert server.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano
    assert attempt.end_time_unix_nano <= server.end_time_unix_nano
    values = values_of(server.attributes)
    assert values["spillway.request_id"] == reply.headers["x-request-id"]
    assert values["spillway.decision"] == "local"
    assert values["http.response.status_code"] == 200
    assert collector.resources[0]["service.name"] == "spillway"
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer t0ken"}


async def test_a_call_has_the_attributes_and_the_metrics_of_the_conventions(tmp_path: Path) -> None:
    answer = Answer.json(ANSWER)
    with collecting() as collector:
        async with pair(Answer.json({}, 503), answer, folder=tmp_path, more=telemetry(collector)) as (_, other, router):
            assert (await router.chat()).status_code == 200
    server, attempts = by_kind(collector)
    failed, well = sorted(attempts, key=lambda span: span.start_time_unix_nano)
    values = values_of(well.attributes)
    assert values["gen_ai.operation.name"] == "chat"
    assert values["gen_ai.provider.name"] == "generic"
    assert values["gen_ai.request.model"] == values["gen_ai.response.model"] == "cloud-m"
    assert (values["gen_ai.usage.input_tokens"], values["gen_ai.usage.output_tokens"]) == (11, 7)
    assert f"http://{values['server.address']}:{values['server.port']}/v1" == other.url
    assert values["spillway.cost_usd"] == pytest.approx(25e-6)
    assert values_of(failed.attributes)["error.type"] == "503"
    assert failed.status.code == 2
    assert values_of(server.attributes)["spillway.decision"] in ("fallback", "overflow")
    points = collector.metrics["gen_ai.client.inference.duration"].histogram.data_points
    assert sum(point.count for point in points) == len(attempts)
    assert {values_of(point.attributes).get("error.type", "") for point in points} == {"503", ""}
    (tokens,) = collector.metrics["gen_ai.client.inference.usage.output_tokens"].sum.data_points
    assert tokens.as_int == 7
    (cost,) = collector.metrics["spillway.cost"].sum.data_points
    assert cost.as_double == pytest.approx(25e-6)
    assert collector.metrics["gen_ai.client.inference.duration"].unit == "s"


async def test_a_stream_says_when_its_first_content_came(tmp_path: Path) -> None:
    with collecting() as collector:
        async with pair(Answer.stream(EVENTS), folder=tmp_path, more=telemetry(collector)) as parts:
            await parts[2].chat({"stream": True})
    _, (attempt,) = by_kind(collector)
    values = values_of(attempt.attributes)
    assert values["gen_ai.request.stream"] is True
    seconds = (attempt.end_time_unix_nano - attempt.start_time_unix_nano) / 1e9
    assert 0 < values["gen_ai.response.time_to_first_chunk"] <= seconds + 1e-6
    (point,) = collector.metrics["gen_ai.client.inference.time_to_first_chunk"].histogram.data_points
    assert point.count == 1


async def test_no_text_of_a_request_or_an_answer_is_exported(tmp_path: Path) -> None:
    answer = Answer.json({**ANSWER, "choices": [wire.message_choice({"content": f"It is {SECRET}."})]})
    refused = Answer.json({"error": {"message": f"can't read {SECRET}", "type": "x", "code": "y"}}, 500)
    with collecting() as collector:
        async with pair(refused, answer, folder=tmp_path, more=telemetry(collector)) as (_, _, router):
            message = {"messages": [{"role": "user", "content": SECRET}], "user": SECRET}
            assert SECRET in (await router.chat(message, x_session_id=SECRET, tracestate=f"a={SECRET}")).text
    assert len(collector.spans) == 3
    assert collector.metrics
    assert all(SECRET.encode() not in body for body in collector.raw)


async def test_a_client_that_samples_nothing_gets_no_spans_and_is_passed_on(tmp_path: Path) -> None:
    with collecting() as collector:
        async with pair(Answer.json(ANSWER), folder=tmp_path, more=telemetry(collector)) as (engine, _, router):
            await router.chat(traceparent=f"00-{TRACE}-{PARENT}-00")
    assert collector.spans == []
    assert engine.seen[0].headers["traceparent"].startswith(f"00-{TRACE}-")
    assert engine.seen[0].headers["traceparent"].endswith("-00")
    assert collector.metrics, "metrics count every request"


async def test_a_trace_that_begins_here_is_sampled_by_the_share(tmp_path: Path) -> None:
    with collecting() as collector:
        async with pair(Answer.json(ANSWER), folder=tmp_path, more=telemetry(collector, ", sample: 0")) as (
            engine,
            _,
            router,
        ):
            await router.chat(traceparent=f"00-{'0' * 32}-{PARENT}-01", tracestate="a=b")
    assert collector.spans == []
    assert engine.seen[0].headers["traceparent"].endswith("-00")
    assert "tracestate" not in engine.seen[0].headers


async def test_without_a_collector_nothing_of_a_trace_is_added(tmp_path: Path) -> None:
    async with pair(Answer.json(ANSWER), folder=tmp_path) as (engine, _, router):
        await router.chat()
        await router.chat(traceparent=f"00-{TRACE}-{PARENT}-01")
        assert router.runtime.services.trace_of is None
    assert "traceparent" not in engine.seen[0].headers
    assert engine.seen[1].headers["traceparent"] == f"00-{TRACE}-{PARENT}-01"


async def test_a_collector_in_trouble_disturbs_no_request_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with collecting() as collector:
        collector.status = 400
        async with pair(Answer.json(ANSWER), folder=tmp_path, more=telemetry(collector)) as (_, _, router):
            for _ in range(3):
                assert (await router.chat()).status_code == 200
            await router.until(collector.arrived.is_set)
            await router.chat()
    assert [line for line in caplog.messages if "takes no spans" in line] == [
        "the collector at telemetry.otlp_url takes no spans; they are lost until it does"
    ]
    assert "t0ken" not in caplog.text


async def test_the_steps_of_a_document_are_calls_of_one_request(tmp_path: Path) -> None:
    document = {"text": "OD axial length 23.1 mm", "schema": "biometry"}
    with collecting() as collector:
        async with FaultUpstream() as engine, FaultUpstream() as other:
            text = settings(local(engine), cloud(other), more=telemetry(collector))
            async with routing(text, tmp_path) as router:
                await router.post(document, "/v1/documents/extract", traceparent=f"00-{TRACE}-{PARENT}-01")
    server, attempts = by_kind(collector)
    assert attempts
    assert {span.parent_span_id for span in attempts} == {server.span_id}
    parents = {seen.headers["traceparent"].split("-")[2] for seen in (*engine.seen, *other.seen)}
    assert parents <= {span.span_id.hex() for span in attempts}


async def test_a_record_beyond_the_bound_is_dropped_and_counted() -> None:
    export = TelemetryExport(Stalled, lambda: {})
    async with pair(Answer.json(ANSWER)) as (_, _, router):
        reply = await router.chat()
        record = router.runtime.services.records.get(reply.headers["x-request-id"])
    assert record is not None
    for _ in range(MOST_WAITING + 3):
        export.on_request(record)
    assert export.dropped == 3


class Stalled:
    """A sender that is never opened."""

    def send_spans(self, spans: Sequence[SpanValues]) -> bool:
        return True

    def count(self, record: RequestRecord, places: Mapping[str, Place]) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError
