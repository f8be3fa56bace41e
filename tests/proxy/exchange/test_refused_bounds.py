"""What bounds the cost of a request and is refused: taken back without a cap, and under one another backend answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, error_of, routing, settings

CAP = "budgets: [{scope: all, period: day, limit_usd: '50'}]\n"
OK = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
)


def refused(name: str, message: str = "Unrecognized request argument supplied: {}") -> Answer:
    return Answer.json(
        {"error": {"message": message.format(name), "type": "invalid_request_error", "param": name}}, 400
    )


def bounds_of(upstream: FaultUpstream) -> list[tuple[object, object]]:
    """Return `max_tokens` and `max_completion_tokens` of each call."""
    return [(sent.json.get("max_tokens"), sent.json.get("max_completion_tokens")) for sent in upstream.seen]


@pytest.mark.parametrize("more", ["", CAP], ids=["no cap", "cap"])
async def test_a_refused_spelling_of_the_output_bound_is_replaced_by_the_other_one(more: str, tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict, routing(settings(cloud(strict), more=more), tmp_path) as router:
        strict.script.append(refused("max_tokens"))
        first, second = await router.chat(), await router.chat()
        assert (first.status_code, second.status_code) == (200, 200)
        assert bounds_of(strict) == [(4096, None), (None, 4096), (None, 4096)]
        record = (await router.client.get(f"/v1/requests/{second.headers['x-request-id']}")).json()
        assert record["attempts"][0]["left_out"] == ["spelling"]


async def test_a_refused_output_bound_is_taken_back_without_a_cap_and_remembered(tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script += [refused("max_tokens"), refused("max_completion_tokens")]
        assert (await router.chat()).status_code == 200
        assert (await router.chat()).status_code == 200
        assert bounds_of(strict) == [(4096, None), (None, 4096), (None, None), (None, None)]


async def test_the_clients_own_spelling_stays_when_the_routers_is_refused(tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script.append(refused("max_tokens", "max_tokens and max_completion_tokens can't both be set ({})"))
        assert (await router.chat({"max_completion_tokens": 7})).status_code == 200
        assert bounds_of(strict) == [(7, 7), (None, 7)]


@pytest.mark.parametrize("by_header", [False, True], ids=["budget", "x-spillway-max-cost-usd"])
async def test_under_a_cap_another_backend_answers_instead_of_one_that_refuses_the_bound(
    by_header: bool, tmp_path: Path
) -> None:
    more = "" if by_header else CAP
    headers = {"x_spillway_max_cost_usd": "0.5"} if by_header else {}
    async with (
        FaultUpstream(OK) as strict,
        FaultUpstream(OK) as other,
        routing(settings(cloud(strict), cloud(other, "other"), more=more), tmp_path) as router,
    ):
        strict.script += [refused("max_tokens"), refused("max_completion_tokens")]
        reply = await router.chat(**headers)
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "other")
        assert all(sent != (None, None) for sent in bounds_of(strict))
        rows = [(row.backend, row.kind, row.amount_nano > 0) for row in router.rows(reply)]
        assert sorted(rows) == [("cloud", "released", False), ("other", "charged", True)]


async def test_under_a_cap_without_another_backend_the_client_hears_why(tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict, routing(settings(cloud(strict), more=CAP), tmp_path) as router:
        strict.script += [refused("max_tokens"), refused("max_completion_tokens")]
        reply = await router.chat()
        assert reply.status_code == 400
        assert "output bound that the router adds" in error_of(reply)["message"]
        assert "unbounded: hold" in error_of(reply)["message"]
        assert router.runtime.services.memory.refused_additions.is_empty  # a client's bad request must not bar it


async def test_under_a_cap_a_backend_known_to_refuse_the_bound_is_not_asked(tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script += [refused("max_tokens"), refused("max_completion_tokens")]
        assert (await router.chat()).status_code == 200
        strict.seen.clear()
        reply = await router.chat(x_spillway_max_cost_usd="0.5")
        assert (reply.status_code, strict.seen) == (400, [])
        assert "refuses the output bound" in error_of(reply)["message"]
        assert (await router.chat({"max_tokens": 3}, x_spillway_max_cost_usd="0.5")).status_code == 200
        assert bounds_of(strict) == [(None, 3)]


async def test_a_backend_that_may_hold_the_unbounded_is_asked_without_the_bound(tmp_path: Path) -> None:
    async with FaultUpstream(OK) as strict:
        line = cloud(strict)[:-1] + ", unbounded: hold}"
        async with routing(settings(line, more=CAP), tmp_path) as router:
            strict.script += [refused("max_tokens"), refused("max_completion_tokens")]
            assert (await router.chat()).status_code == 200
            assert (await router.chat()).status_code == 200
            assert bounds_of(strict)[-2:] == [(None, None), (None, None)]


@pytest.mark.parametrize("more", ["", CAP], ids=["no cap", "cap"])
async def test_a_bound_that_only_exceeds_the_context_is_taken_back_for_this_request(more: str, tmp_path: Path) -> None:
    """The model can't give more than its context, so that the hold covers the answer without the bound."""
    message = "This model's maximum context length is 4096 tokens. However, you requested 4400 tokens ({})."
    full = Answer.json({"error": {"message": message, "code": "context_length_exceeded"}}, 400)
    async with FaultUpstream(OK) as small:
        line = cloud(small).replace("provider: generic", "provider: openai")
        async with routing(settings(line, more=more), tmp_path) as router:
            small.script.append(full)
            assert (await router.chat()).status_code == 200
            assert (await router.chat()).status_code == 200
            assert bounds_of(small) == [(None, 4096), (None, None), (None, 4096)]


async def test_each_addition_of_several_is_taken_back(tmp_path: Path) -> None:
    stream = Answer.stream(
        b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    )
    async with FaultUpstream(stream) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script += [refused("stream_options"), refused("max_tokens"), refused("max_completion_tokens")]
        assert (await router.chat({"stream": True})).status_code == 200
        await router.chat({"stream": True})
        added = {"stream_options", "max_tokens", "max_completion_tokens"}
        assert [len(sent.json.keys() & added) for sent in strict.seen] == [2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/completions", {"prompt": "hi"}, "max_tokens"),
        ("/v1/responses", {"input": "hi"}, "max_output_tokens"),
    ],
)
async def test_other_protocols_take_their_bound_back(
    path: str, body: dict[str, object], field: str, tmp_path: Path
) -> None:
    answer = Answer.json(
        {
            "id": "r",
            "status": "completed",
            "output": [],
            "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}],
        }
    )
    async with FaultUpstream(answer) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script.append(refused(field))
        reply = await router.post({"model": "auto", **body}, path)
        assert reply.status_code == 200, reply.text
        assert [sent.json.get(field) for sent in strict.seen] == [4096, None]


async def test_the_usual_service_is_taken_back(tmp_path: Path) -> None:
    step = "{service: priority, input_per_million: '3', output_per_million: '4'}"
    price = f"{{input_per_million: '1', output_per_million: '2', steps: [{step}]}}"
    async with FaultUpstream(OK) as strict:
        line = cloud(strict, price=price).replace("provider: generic", "provider: openai")
        async with routing(settings(line), tmp_path) as router:
            strict.script.append(refused("service_tier"))
            assert (await router.chat()).status_code == 200
            assert [sent.json.get("service_tier") for sent in strict.seen] == ["default", None]
