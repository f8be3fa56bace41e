"""The stream promise (docs/stream-promise.md) against an upstream that breaks off at every byte and in every way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from spillway_router.testing import Answer, FaultUpstream, streams
from spillway_router.testing.harness import MESSAGES, Router, cloud, error_of, events, local, pair, routing, settings
from spillway_router.testing.streams import DONE, SHAPES, USAGE, Stream, delta
from spillway_router.testing.upstream import End

SHORT = "limits: {first_event_s: 0.25, stall_s: 0.25}\n"
FIRST, SECOND = "alpha", "beta"


def seen_whole(shape: str, word: str) -> bytes:
    """Return the bytes that a client gets for a whole answer: all but the usage event, which it did not ask for."""
    return SHAPES[shape](word).body.replace(USAGE, b"")


def assert_interrupted(reply: httpx.Response, sent: bytes) -> str:
    """Check for a part of what was sent, exactly one error event and a clean end; return the error's message."""
    assert reply.status_code == 200
    assert reply.headers["x-spillway-backend"] == "local"
    assert reply.content.endswith(b"\n\n")
    good, _, error = reply.content[:-2].rpartition(b"\n\n")
    assert sent.startswith(good + b"\n\n")
    assert DONE not in reply.content
    assert b"upstream_interrupted" not in good
    error_message = error_in(reply.request.url.path, error, len(good.split(b"\n\n")))
    assert error_message["code"] == "upstream_interrupted"
    message: str = error_message["message"]
    return message


def error_in(path: str, event: bytes, events_before: int) -> dict[str, Any]:
    """Return the error object of an event after checking that it has its protocol's shape, and nothing else."""
    name, _, data = event.partition(b"data: ")
    body = json.loads(data)
    if path in ("/v1/messages", "/v1/responses"):
        assert (name, body["type"]) == (b"event: error\n", "error")
    if path == "/v1/messages":
        assert set(body) == {"type", "error"}
        assert body["error"]["type"] == "api_error"
    elif path == "/v1/responses":
        assert set(body) == {"type", "code", "message", "param", "sequence_number", "error"}
        assert body["sequence_number"] == events_before
        assert (body["code"], body["message"]) == (body["error"]["code"], body["error"]["message"])
    else:
        assert (name, set(body)) == (b"", {"error"})
    error: dict[str, Any] = body["error"]
    return error


async def ask(router: Router, stream: Stream, **fields: Any) -> httpx.Response:
    return await router.post({"model": "auto", "stream": True, **stream.fields, **fields}, stream.path)


# Cut at every byte.


WIDE = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
"""High enough that no request overflows on a busy machine."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ["whole", "fin", "rst"])
async def test_cut_at_every_byte(shape: str, end: End) -> None:
    first = SHAPES[shape](FIRST)
    async with pair(None, Answer.stream(SHAPES[shape](SECOND).body), more=WIDE) as (broken, good, router):
        for cut in range(len(first.body) + 1):
            broken.answer = Answer.stream(first.body, cut=cut, end=end)
            router.forget_failures()
            asked = len(good.seen)
            reply = await ask(router, first)
            check_cut(shape, first, cut, end, reply, len(good.seen) - asked)
        assert len(broken.seen) == len(first.body) + 1


def check_cut(shape: str, first: Stream, cut: int, end: End, reply: httpx.Response, asked_second: int) -> None:
    arrived = first.whole_events(cut)
    last = arrived > first.last
    openai = shape in ("chat", "completions")
    # A broken connection may only go unnoticed when nothing was to follow.
    # In a body that ends as it should, the last event may lack its blank line.
    if end == "whole":
        arrived = max(arrived, first.whole_events(cut + 1), first.whole_events(cut + 2))
        last = arrived > first.last
    fragment = first.fragment(cut) and first.fragment(cut + 1) and first.fragment(cut + 2)
    whole = last and not fragment if end == "whole" else arrived == len(first.events)
    # A reset overtakes what was sent before it: what the router had not read by then never came.
    overtaken = end == "rst" and asked_second == 1
    if arrived <= first.content or overtaken:
        assert asked_second == 1, cut
        assert reply.status_code == 200
        assert reply.content == seen_whole(shape, SECOND), cut
        assert FIRST.encode() not in reply.content
        assert reply.headers["x-spillway-backend"] == "cloud"
        assert reply.headers["x-spillway-attempts"] == "2"
        return
    assert asked_second == 0, f"stitching at byte {cut}"
    if whole:
        assert reply.content == seen_whole(shape, FIRST), cut
        assert reply.content.count(b"[DONE]") == openai
    else:
        assert_interrupted(reply, first.body)


@pytest.mark.parametrize("shape", SHAPES)
async def test_chunks_of_every_size_give_the_same_answer(shape: str) -> None:
    stream = SHAPES[shape](FIRST)
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in [*range(1, 40), 64, 101, 211]:
            upstream.answer = Answer.stream(stream.body, piece=piece)
            reply = await ask(router, stream)
            assert reply.content == seen_whole(shape, FIRST), piece
            assert reply.content.count(DONE) == (shape in ("chat", "completions"))


async def test_chunks_that_begin_and_end_inside_events_are_not_taken_for_whole_ones() -> None:
    """The chunks are as long as the events but shifted, so what is held back is as long as what is passed on."""
    word = delta({"content": "abc"})
    body = word * 20 + delta({}, "stop") + DONE
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for shift in range(1, len(word)):
            # The first event is made longer by a comment, so that every later cut lies `shift` bytes into an event.
            comment = b":" + b"x" * (len(word) - shift - 3) + b"\n\n" if shift < len(word) - 2 else b""
            upstream.answer = Answer.stream(comment + body, piece=len(word))
            assert (await ask(router, streams.chat(FIRST))).content == comment + body


async def test_crlf_comments_and_event_ids_pass_through_untouched() -> None:
    body = b": hi\r\n\r\n" + delta({"content": "a"}).replace(b"\n", b"\r\n")
    body += b": ping\n\nid: 7\n" + delta({"content": "b"}) + delta({}, "stop") + DONE
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1, 7):
            upstream.answer = Answer.stream(body, piece=piece)
            assert (await ask(router, streams.chat(FIRST))).content == body


# What is a failure although bytes come.

BAD_ENDS: dict[str, bytes] = {
    "no finish_reason": b"",
    "[DONE] without finish_reason": DONE,
    "bad JSON": b'data: {"choices": [}\n\n',
    "JSON cut short": b'data: {"choices": [{"index": 0, "delta": {"con\n\n',
    "not an object": b"data: [1]\n\n",
    "bad UTF-8": b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n',
    "lone surrogate and bad JSON": b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}}\n\n',
    "finish_reason error": delta({}, "error") + DONE,
    "finish_reason abort": delta({}, "abort") + DONE,
    "nested error": b'data: {"error": {"message": "boom", "code": 500}}\n\n' + DONE,
    "error text": b'data: {"error": "boom"}\n\n' + DONE,
    "flat error": b'data: {"object": "error", "message": "boom", "code": 400}\n\n' + DONE,
    "flat error without object": b'data: {"message": "boom", "type": "server_error", "code": "x"}\n\n',
    "named error": b'event: error\ndata: {"message": "boom"}\n\n' + DONE,
    "choice is no object": b'data: {"choices": [7]}\n\n' + DONE,
    "error after finish_reason": delta({}, "stop") + b'data: {"error": {"message": "boom"}}\n\n' + DONE,
    "bad JSON after finish_reason": delta({}, "stop") + b"data: {\n\n" + DONE,
}


@pytest.mark.parametrize("name", BAD_ENDS)
@pytest.mark.parametrize("piece", [0, 11])
async def test_a_bad_stream_fails_over_or_is_told(name: str, piece: int) -> None:
    begun = delta({"role": "assistant", "content": ""})
    async with pair(None, Answer.stream(streams.chat(SECOND).body)) as (broken, good, router):
        body = begun + delta({"content": FIRST}) + BAD_ENDS[name]
        # Whole pieces: content and flaw come apart, so that the content has left when the flaw is seen.
        broken.answer = Answer.stream(body, piece=piece or len(begun + delta({"content": FIRST})))
        assert_interrupted(await ask(router, streams.chat(FIRST)), body)
        assert not good.seen

        if "after finish" in name:
            return
        broken.answer = Answer.stream(begun + BAD_ENDS[name], piece=piece)
        reply = await ask(router, streams.chat(FIRST))
        assert reply.content == seen_whole("chat", SECOND)


async def test_a_flaw_and_the_end_in_one_packet_are_told_as_a_flaw() -> None:
    begun = delta({"role": "assistant", "content": ""}) + delta({"content": FIRST})
    async with pair(None, Answer.stream(streams.chat(SECOND).body)) as (broken, good, router):
        for name, bad in BAD_ENDS.items():
            router.forget_failures()
            broken.answer = Answer.stream(begun + bad, piece=len(begun))
            reply = await ask(router, streams.chat(FIRST))
            assert_interrupted(reply, begun + bad)
            record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
            assert (record["status"], record["code"]) == (502, "upstream_interrupted"), name
            assert record["attempts"][0]["outcome"] == "failed", name
        assert not good.seen


async def test_a_message_that_stops_without_a_reason_breaks_off() -> None:
    """`message_stop` alone proves as little as `[DONE]` alone."""
    whole = streams.messages(FIRST)
    begun = b"".join(whole.events[: whole.content + 1])
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (1, len(begun)):
            router.forget_failures()
            upstream.answer = Answer.stream(begun + whole.events[-1], piece=piece)
            message = assert_interrupted(await ask(router, whole), begun)
            assert "without a stop_reason" in message


async def test_content_after_a_finish_streams_through_and_its_usage_is_counted() -> None:
    """Some providers put a finish_reason on every chunk."""
    words = [delta({"content": f"{FIRST} "}, "stop") for _ in range(16)]
    body = b"".join(words) + USAGE + DONE
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream))) as router:
        for piece in (0, 1, len(words[0])):
            upstream.answer = Answer.stream(body, piece=piece)
            reply = await ask(router, streams.chat(FIRST))
            assert reply.content == body.replace(USAGE, b""), piece
            assert router.rows(reply)[0].prompt_tokens == 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("missing", [1, 2])
async def test_the_last_event_may_lack_its_blank_line(shape: str, missing: int) -> None:
    """Client libraries accept it on chat; on the other protocols some lose the end without a word."""
    stream = SHAPES[shape](FIRST)
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1, len(stream.body) - 40):
            upstream.answer = Answer.stream(stream.body[:-missing], piece=piece)
            assert (await ask(router, stream)).content == seen_whole(shape, FIRST), piece


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_blank_line_that_a_broken_connection_lacks_is_no_end(shape: str) -> None:
    stream = SHAPES[shape](FIRST)
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        upstream.answer = Answer.stream(stream.body[:-1], end="fin", piece=len(stream.body) - 40)
        assert_interrupted(await ask(router, stream), stream.body)


async def test_done_right_after_a_finish_with_content_ends_the_stream_once() -> None:
    """Mistral sends a tool call together with its finish, and then [DONE]; nothing more need come after that."""
    body = delta({"role": "assistant", "content": ""}) + delta({"content": FIRST}, "stop") + DONE
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1, len(delta({"content": FIRST}, "stop"))):
            for end in ("whole", "hang"):
                upstream.answer = Answer.stream(body, piece=piece, end=end)
                async with asyncio.timeout(4):  # less than a silent upstream is given
                    assert (await ask(router, streams.chat(FIRST))).content == body, (piece, end)


async def test_an_empty_finish_reason_is_none() -> None:
    words = b"".join(delta({"content": FIRST}, "") for _ in range(4))
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1):
            upstream.answer = Answer.stream(words + DONE, piece=piece)
            if piece:
                assert_interrupted(await ask(router, streams.chat(FIRST)), words)
            upstream.answer = Answer.stream(words + delta({}, "stop") + DONE, piece=piece)
            assert (await ask(router, streams.chat(FIRST))).content == words + delta({}, "stop") + DONE


@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_after_the_end_reaches_the_client(shape: str) -> None:
    stream = SHAPES[shape](FIRST)
    more = DONE + stream.events[stream.content] + b'data: {"error": {"message": "late"}}\n\n'
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1, 50):
            upstream.answer = Answer.stream(stream.body + more, piece=piece)
            assert (await ask(router, stream)).content == seen_whole(shape, FIRST), piece


async def test_halves_of_a_character_pass_through_as_they_came() -> None:
    def half(escape: bytes) -> bytes:
        return b'data: {"choices":[{"index":0,"delta":{"content":"\\u%b"}}]}\n\n' % escape

    body = half(b"d83d") + half(b"DE00") + delta({}, "stop") + DONE
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 1, 30):
            upstream.answer = Answer.stream(body, piece=piece)
            assert (await ask(router, streams.chat(FIRST))).content == body, piece


@pytest.mark.parametrize(
    ("shape", "event"),
    [
        ("chat", delta({"images": [{"image_url": {"url": "data:image/png;base64," + "A" * 2_000_000}}]})),
        (
            "responses",
            b'event: response.image_generation_call.partial_image\ndata: {"type":'
            b'"response.image_generation_call.partial_image","partial_image_b64":"%b"}\n\n' % (b"A" * 2_000_000),
        ),
    ],
)
async def test_pictures_of_megabytes_are_content(shape: str, event: bytes) -> None:
    stream = SHAPES[shape](FIRST)
    body = event * 3 + b"".join(stream.events[stream.content :])
    async with FaultUpstream(Answer.stream(body)) as upstream, routing(settings(local(upstream))) as router:
        reply = await ask(router, stream)
        assert reply.content == body.replace(USAGE, b"")


async def test_every_choice_needs_its_finish_reason() -> None:
    one = delta({"content": "a"}, index=0) + delta({"content": "b"}, index=1) + delta({}, "stop", 0)
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        for piece in (0, 9):
            upstream.answer = Answer.stream(one + DONE, piece=piece)
            if piece:
                assert_interrupted(await ask(router, streams.chat(FIRST), n=2), one)
            whole = one + delta({}, "length", 1) + DONE
            upstream.answer = Answer.stream(whole, piece=piece)
            assert (await ask(router, streams.chat(FIRST), n=2)).content == whole


# Time.


async def test_a_stall_in_the_middle_is_told_and_the_upstream_closed() -> None:
    begun = delta({"role": "assistant", "content": ""}) + delta({"content": FIRST})
    async with pair(more=SHORT) as (broken, good, router):
        broken.answer = Answer.stream(begun, end="hang")
        message = assert_interrupted(await ask(router, streams.chat(FIRST)), begun)
        assert "in time" in message
        await router.until(broken.seen[0].closed.is_set)
        assert not good.seen


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(silent=True, end="hang"), id="never answers"),
        pytest.param(Answer.stream(b"", end="hang"), id="head only"),
        pytest.param(Answer.stream(delta({"role": "assistant"}), end="hang"), id="role only"),
        pytest.param(Answer.stream(b": ping\n\n" * 3, end="hang"), id="comments only"),
        pytest.param(Answer.stream(delta({"content": FIRST})[:-1], end="hang"), id="half an event"),
        pytest.param(Answer(silent=True, end="rst"), id="reset before the head"),
        pytest.param(Answer(silent=True, end="fin"), id="closed before the head"),
        pytest.param(Answer(b"not HTTP at all", end="fin"), id="short body"),
    ],
)
async def test_nothing_useful_in_time_goes_to_the_next(answer: Answer) -> None:
    async with pair(answer, Answer.stream(streams.chat(SECOND).body), more=SHORT) as (broken, _, router):
        reply = await ask(router, streams.chat(FIRST))
        assert reply.content == seen_whole("chat", SECOND)
        await router.until(broken.seen[0].closed.is_set)


@pytest.mark.parametrize("begun", [b"", delta({"role": "assistant"}), delta({"content": FIRST})])
async def test_comments_do_not_feed_the_timer(begun: bytes) -> None:
    """Comments come for as long as the connection lives; the answer must end nevertheless."""
    async with FaultUpstream() as broken, routing(settings(local(broken), more=SHORT)) as router:
        broken.answer = Answer.stream(begun).then(b": ping\n\n")
        reply = await ask(router, streams.chat(FIRST))
        if FIRST.encode() in begun:
            assert_interrupted(reply, begun + b": ping\n\n" * 10_000)
        else:
            assert (reply.status_code, error_of(reply)["code"]) == (504, "upstream_timeout")
        await router.until(broken.seen[0].closed.is_set)


async def test_a_stall_after_content_that_came_with_a_finish_is_told() -> None:
    words = delta({"content": FIRST}, "stop") * 2
    async with FaultUpstream() as upstream, routing(settings(local(upstream), more=SHORT)) as router:
        upstream.answer = Answer.stream(words, end="hang")
        assert_interrupted(await ask(router, streams.chat(FIRST)), words)


async def test_a_missing_done_after_a_whole_answer_is_added() -> None:
    body = streams.chat(FIRST).body
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        upstream.answer = Answer.stream(body.replace(DONE, b"").replace(USAGE, b""))
        reply = await ask(router, streams.chat(FIRST))
        assert events(reply)[-1] == b"[DONE]"
        assert reply.content.count(DONE) == 1


# Usage.


async def test_usage_is_asked_for_and_kept_from_clients_who_did_not() -> None:
    stream = streams.chat(FIRST)
    async with FaultUpstream(Answer.stream(stream.body)) as upstream, routing(settings(cloud(upstream))) as router:
        plain = await ask(router, stream)
        assert upstream.seen[-1].json["stream_options"] == {"include_usage": True}
        assert b"usage" not in plain.content
        (row,) = router.rows(plain)
        assert (row.prompt_tokens, row.completion_tokens, row.amount_nano) == (3, 2, 3 * 1000 + 2 * 2000)

        options = {"include_usage": False, "continuous_usage_stats": True, "x": 1}
        kept = await ask(router, stream, stream_options=options)
        assert upstream.seen[-1].json["stream_options"] == {"include_usage": True, "x": 1}
        assert b"usage" not in kept.content

        asked = await ask(router, stream, stream_options={"include_usage": True})
        usage = json.loads(events(asked)[-2])["usage"]
        assert usage == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.000007}

        for shape in ("chat", "completions"):
            other = SHAPES[shape](FIRST)
            upstream.answer = Answer.stream(other.body)
            sent = {"model": "auto", "stream": True, **other.fields}
            costly = await router.post(sent, other.path, x_spillway_usage_cost="true")
            assert b"[DONE]" in costly.content


async def test_usage_in_the_finishing_event_is_the_providers_own_and_stays() -> None:
    """`include_usage` asks for an event with usage alone, so a provider that puts it beside choices always does."""
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}\n\n'
    async with FaultUpstream() as upstream, routing(settings(local(upstream))) as router:
        upstream.answer = Answer.stream(delta({"content": FIRST}) + finish + DONE)
        reply = await ask(router, streams.chat(FIRST))
        assert reply.content == delta({"content": FIRST}) + finish + DONE
        assert router.rows(reply)[0].prompt_tokens == 3


async def test_a_whole_answer_carries_its_cost_when_asked() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}
    async with FaultUpstream(Answer.json(body)) as upstream, routing(settings(cloud(upstream))) as router:
        plain = await router.chat()
        assert plain.json() == body
        assert plain.headers["x-spillway-cost-usd"] == "0.000007"
        asked = await router.chat(x_spillway_usage_cost="true")
        assert asked.json()["usage"] == {**usage, "cost": 0.000007}
        assert [m["content"] for m in upstream.seen[0].json["messages"]] == [MESSAGES[0]["content"]]
