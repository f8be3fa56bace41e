"""Addresses of media that lead into the operator's network are refused in every spelling; public ones are not."""

from __future__ import annotations

import pytest

from spillway_router.commands.up import vllm_arguments
from spillway_router.config.settings import MediaPart, ServerPart
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.media_urls import MOST_FETCHED, addresses_in, refuse_media
from spillway_router.testing import Answer
from spillway_router.testing.harness import error_of, pair
from spillway_router.testing.openai_wire import message_choice

INTERNAL = [
    "http://127.0.0.1/x",
    "http://127.1/",
    "http://0/",
    "http://0.0.0.0:8001/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://localhost:8001/v1/models",
    "HTTP://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:0:0:1]:80/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://100.64.0.1/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata/",
    "http://printer.local/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http:\\\\127.0.0.1\\x",
    "http://127.0.0.1.:80/",
    " http://127.0.0.1/",
    "ftp://10.0.0.1/a.png",
    "http:///x",
    "http://[bad/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ht\ttp://127.0.0.1/",
    "http:/\r\n/127.0.0.1/",
    "\x01http://127.0.0.1/",
    "\x00 file:///etc/passwd",
    "fi\nle:///etc/passwd",
    "//127.0.0.1/x",
    "\\\\127.0.0.1\\x",
    "http://\u2460\u2461\u2466.0.0.1/",
    "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/",
    "http://127\u30020\u30020\u30021/",
    "http://%31%32%37.0.0.1/",
    "http://localhost%2e/",
    "http://l\u00adocalhost/",
    "http://local\u200bhost/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\x00/",
    "http://127.0.0.1%00.example.com/",
    "http://127.0.0.1.nip.io/",
    "http://a.10-0-0-1.sslip.io/",
]
PUBLIC = [
    "https://example.com/a.png",
    "http://8.8.8.8/a.png",
    "https://[2606:4700::1111]/a.png",
    "https://example.com/?next=http://127.0.0.1/",
    "https://localhost.example.com/a.png",
    "data:image/png;base64,AAAA",
    "gs://bucket/a.png",
    "https://172.32.0.1/",
    "https://8.8.8.8.nip.io/a.png",
    "https://cdn-1.2.example.com/v1.2.3.4/a.png",
    "https://b\u00fccher.example/a.png",
]


@pytest.mark.parametrize("address", INTERNAL)
def test_an_internal_address_is_refused(address: str) -> None:
    content = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}]
    with pytest.raises(RefusedError) as refused:
        refuse_media(addresses_in(content), frozenset())
    assert refused.value.refusal.status == 400


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not(address: str) -> None:
    refuse_media([address], frozenset())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}},
        {"type": "image_url", "image_url": "http://10.0.0.1/"},
        {"type": "input_image", "image_url": "http://10.0.0.1/"},
        {"type": "input_file", "file_url": "http://10.0.0.1/"},
        {"type": "audio_url", "audio_url": {"url": "http://10.0.0.1/"}},
        {"type": "video_url", "video_url": {"url": "http://10.0.0.1/"}},
        {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}},
        {"type": "document", "source": {"type": "url", "url": "http://10.0.0.1/"}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}}]},
    ],
    ids=str,
)
async def test_every_part_is_looked_at(part: dict[str, object]) -> None:
    answer = Answer.json({"choices": [message_choice({"content": "yes"})]})
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]}
    async with pair(answer, answer) as (engine, other, router):
        reply = await router.post({"model": "auto", **body})
        assert (reply.status_code, error_of(reply)["param"]) == (400, "messages"), part
        assert not engine.seen
        assert not other.seen
    async with pair(answer, answer, more="media: {allowed_hosts: [10.0.0.1]}\n") as (_, _, router):
        reply = await router.post({"model": "auto", **body})
        assert "media.allowed_hosts" not in reply.text


async def test_where_hosts_are_named_media_come_from_no_other() -> None:
    answer = Answer.json({"choices": [message_choice({"content": "yes"})]})
    more = "media: {only_hosts: [Images.example.com], allowed_hosts: [10.0.0.1]}\n"
    async with pair(answer, answer, more=more) as (_, _, router):
        for address, is_permitted in (
            ("https://images.example.com/a.png", True),
            ("https://IMAGES.example.com:8443/a.png", True),
            ("http://10.0.0.1/a.png", True),
            ("data:image/png;base64,AAAA", True),
            ("https://example.com/a.png", False),
            ("https://images.example.com.evil.example/a.png", False),
            ("https://images.example.com@evil.example/a.png", False),
            ("http://10.0.0.2/a.png", False),
        ):
            part = {"type": "image_url", "image_url": {"url": address}}
            reply = await router.post({"model": "auto", "messages": [{"role": "user", "content": [part]}]})
            assert ("media." in reply.text) is not is_permitted, (address, reply.text)


def test_vllm_is_told_the_hosts_unless_the_user_told_it() -> None:
    option = ("--allowed-media-domains", "images.example.com", "10.0.0.1")
    media = MediaPart(only_hosts=("images.example.com",), allowed_hosts=("10.0.0.1",))
    assert vllm_arguments(ServerPart(vllm_args=("--seed", "1")), media) == ("--seed", "1", *option)
    assert vllm_arguments(ServerPart(), MediaPart(allowed_hosts=("10.0.0.1",))) == ()  # public hosts stay open
    own = ("--allowed-media-domains", "elsewhere.example")
    assert vllm_arguments(ServerPart(vllm_args=own), media) == own


@pytest.mark.parametrize("name", ["prompt_embeds", "chat_template"])
async def test_fields_that_would_run_in_the_engine_are_refused(name: str) -> None:
    async with pair(Answer.json({"choices": [message_choice({"content": "yes"})]})) as (engine, _, router):
        reply = await router.chat({name: "x"})
        assert (reply.status_code, error_of(reply)["param"]) == (400, name)
        assert not engine.seen
        assert (await router.chat({name: None})).status_code == 200


async def test_fields_that_steer_the_engine_stay_behind() -> None:
    control = {
        "priority": -1000,
        "vllm_xargs": {"a": 1},
        "kv_transfer_params": {"do_remote_decode": True},
        "mm_processor_kwargs": {"num_crops": 99},
        "media_io_kwargs": {"video": {"num_frames": -1}},
        "request_id": "mine",
        "logits_processors": ["os.system"],
    }
    async with pair(Answer.json({"choices": [message_choice({"content": "yes"})]})) as (engine, _, router):
        reply = await router.chat({**control, "top_k": 3, "cache_salt": "s"})
        assert reply.status_code == 200
        sent = engine.seen[0].json if hasattr(engine.seen[0], "json") else engine.seen[0].body.decode()
        for name in control:
            assert name not in str(sent), name
        assert "top_k" in str(sent)
        assert "cache_salt" in str(sent)


async def test_media_are_looked_for_in_fields_that_the_endpoint_does_not_need() -> None:
    """vLLM reads `messages` for embeddings, too."""
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    async with pair(Answer.json({"data": []})) as (engine, _, router):
        body = {"model": "auto", "input": "x", "messages": [{"role": "user", "content": [part]}]}
        reply = await router.post(body, "/v1/embeddings")
        assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_request")
        assert not engine.seen


def test_more_addresses_than_any_provider_takes_are_refused() -> None:
    refuse_media(["https://example.com/a.png", "data:image/png;base64,AAAA"] * MOST_FETCHED, frozenset())
    with pytest.raises(RefusedError, match="more than 2000 addresses"):
        refuse_media(["https://example.com/a.png"] * (MOST_FETCHED + 1), frozenset())


def test_a_host_that_is_longer_than_any_name_is_refused() -> None:
    refuse_media(["https://example.com/" + "a" * 100_000], frozenset())
    with pytest.raises(RefusedError, match="own network"):
        refuse_media(["https://" + "a." * 1_000 + "com/"], frozenset())
