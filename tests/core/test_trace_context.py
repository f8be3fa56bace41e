"""The trace of a request: the client's if it is well-formed, else a new one with ids that follow from the request's."""

from __future__ import annotations

import pytest

from spillway_router.core.trace_context import trace_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_clients_trace_and_its_decision_are_kept() -> None:
    for flags, sampled in (("01", True), ("00", False), ("03", True)):
        trace = trace_of("req_1", {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}, share=0.0)
        assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, PARENT, sampled)
        assert trace.parent_of_upstream(1) == f"00-{TRACE}-{trace.attempt_span_id(1)}-{'01' if sampled else '00'}"


def test_a_later_version_may_have_further_fields() -> None:
    assert trace_of("req_1", {"traceparent": f"01-{TRACE}-{PARENT}-01-more"}, share=0.0).trace_id == TRACE


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\r\nx: y",
    ],
)
def test_anything_else_begins_a_trace(malformed: str) -> None:
    trace = trace_of("req_1", {"traceparent": malformed}, share=1.0)
    assert (trace.parent_id, trace.sampled) == ("", True)
    assert trace == trace_of("req_1", {}, share=1.0)
    assert int(trace.trace_id, 16)


def test_spans_of_one_request_have_ids_of_their_own() -> None:
    trace = trace_of("req_1", {}, share=1.0)
    ids = {trace.span_id, *(trace.attempt_span_id(number) for number in range(1, 9))}
    assert len(ids) == 9
    assert {len(one) for one in ids} == {16}


def test_the_share_is_that_of_the_traces_that_begin_here() -> None:
    sampled = sum(trace_of(f"req_{number}", {}, share=0.25).sampled for number in range(4000))
    assert 900 < sampled < 1100
    assert not any(trace_of(f"req_{number}", {}, share=0.0).sampled for number in range(100))
