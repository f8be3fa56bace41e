"""The fake cloud as a client sees it: a real process, real sockets, the real `openai` SDK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import httpx
import openai
import pytest
from loadtests.fake_cloud.corpus import digest, load, look_up, pieces, save
from loadtests.fake_cloud.limits import Bucket, duration
from loadtests.fake_cloud.models import MODELS, CloudTokens

KEY = "gsk_test_only"
MODEL = "openai/gpt-oss-20b"
DOCUMENTS = {f"Report {number}\nAL: 23.{number:02} mm": f'{{"AL":23.{number:02}}}' for number in range(20)}
FIRST = next(iter(DOCUMENTS))


@dataclass(frozen=True, slots=True)
class Standin:
    url: str
    root: str
    process: subprocess.Popen[str]

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=20)

    def get(self, path: str) -> dict[str, object]:
        answer = httpx.get(self.root + path, headers={"authorization": f"Bearer {KEY}"}, timeout=20)
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body


def start(folder: Path, *options: str) -> Standin:
    corpus = folder / "corpus.jsonl"
    save(corpus, DOCUMENTS.items())
    command = [sys.executable, "-m", "loadtests.fake_cloud", "--corpus", str(corpus), "--latency", "0.1", *options]
    environment = {**os.environ, "STANDIN_API_KEY": KEY}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the stand-in ended with {process.wait(10)}"
    announced = json.loads(line)
    return Standin(announced["url"], announced["root"], process)


def stop(standin: Standin) -> int:
    standin.process.send_signal(signal.SIGTERM)
    try:
        return standin.process.wait(15)
    finally:
        standin.process.kill()
        assert standin.process.stdout is not None
        standin.process.stdout.close()


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    running = start(tmp_path_factory.mktemp("standin"))
    yield running
    assert stop(running) in (0, -signal.SIGTERM)


def ask(text: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": "Read this report:\n" + text}]


def test_whole_answer_has_groqs_shape(standin: Standin) -> None:
    with standin.client() as client:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ask(FIRST))
    answer = raw.parse()
    assert answer.choices[0].message.content == DOCUMENTS[FIRST]
    assert answer.choices[0].finish_reason == "stop"
    body = json.loads(raw.content)
    assert body["x_groq"]["id"] == raw.headers["x-request-id"]
    usage = body["usage"]
    assert {"queue_time", "prompt_time", "completion_time", "total_time"} <= usage.keys()
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["total_time"] == pytest.approx(usage["prompt_time"] + usage["completion_time"])
    for what in ("requests", "tokens"):
        assert int(raw.headers[f"x-ratelimit-remaining-{what}"]) < int(raw.headers[f"x-ratelimit-limit-{what}"])
        assert raw.headers[f"x-ratelimit-reset-{what}"].endswith("s")


def test_stream_says_the_same_as_the_whole_answer(standin: Standin) -> None:
    text = list(DOCUMENTS)[1]
    with standin.client() as client:
        options: openai.types.chat.ChatCompletionStreamOptionsParam = {"include_usage": True}
        chunks = list(
            client.chat.completions.create(model=MODEL, messages=ask(text), stream=True, stream_options=options)
        )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == DOCUMENTS[text]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    last = chunks[-2].model_dump()["x_groq"]["usage"]
    assert last["completion_tokens"] == chunks[-1].usage.completion_tokens


def test_stream_ends_with_done_and_only_shows_usage_when_asked(standin: Standin) -> None:
    body = {"model": MODEL, "messages": ask(FIRST), "stream": True, "include_reasoning": False}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{standin.url}/chat/completions", json=body, headers=headers, timeout=20)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert all(event["choices"] for event in parsed)
    assert not any("reasoning" in event["choices"][0]["delta"] for event in parsed)


def test_bill_adds_up_in_nano_dollars(standin: Standin) -> None:
    before = standin.get("/bill")
    used = []
    with standin.client() as client:
        for text in list(DOCUMENTS)[2:8]:
            usage = client.chat.completions.create(model=MODEL, messages=ask(text)).usage
            assert usage is not None
            used.append(usage)
    after = standin.get("/bill")
    price = MODELS[MODEL]
    wanted = sum(
        (u.prompt_tokens * Fraction(price.input_per_million) + u.completion_tokens * Fraction(price.output_per_million))
        * 1000
        for u in used
    )
    assert int(after["nano_usd"]) - int(before["nano_usd"]) == wanted  # type: ignore[call-overload]
    assert int(after["requests"]) - int(before["requests"]) == len(used)  # type: ignore[call-overload]


def test_repeated_document_is_cached_and_cheaper(standin: Standin) -> None:
    text = "Report 9\n" + "padding of a long report " * 40
    with standin.client() as client:
        first = client.chat.completions.create(model=MODEL, messages=ask(text)).usage
        second = client.chat.completions.create(model=MODEL, messages=ask(text)).usage
    assert first is not None
    assert second is not None
    assert first.prompt_tokens_details is not None
    assert second.prompt_tokens_details is not None
    assert first.prompt_tokens_details.cached_tokens == 0
    cached = second.prompt_tokens_details.cached_tokens or 0
    assert cached > 0
    assert cached % 128 == 0
    lines = standin.get("/bill")["lines"]
    assert isinstance(lines, list)
    assert lines[-1]["nano_usd"] < lines[-2]["nano_usd"]


def test_seen_tells_known_from_unknown_documents(standin: Standin) -> None:
    document, unknown = list(DOCUMENTS)[10], "Report nobody wrote\nAL: 1"
    with standin.client() as client:
        client.chat.completions.create(model=MODEL, messages=ask(document))
        client.chat.completions.create(model=MODEL, messages=ask(unknown))
    seen = standin.get("/seen")
    assert digest(document) in seen["documents"]  # type: ignore[operator]
    assert digest("Read this report:\n" + unknown) in seen["unknown"]  # type: ignore[operator]


def test_wrong_key_is_401(standin: Standin) -> None:
    with standin.client("gsk_wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_models_list_and_single(standin: Standin) -> None:
    with standin.client() as client:
        listed = {model.id for model in client.models.list()}
        assert listed == set(MODELS)
        assert client.models.retrieve(MODEL).id == MODEL
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("no-such")
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="no-such", messages=ask(FIRST))
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"priority": 1}, "priority"),
        ({"n": 2}, "'n'"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "no role"}]}, "role"),
    ],
)
def test_fields_groq_refuses_are_400(standin: Standin, extra: dict[str, object], says: str) -> None:
    body = {"model": MODEL, "messages": ask(FIRST), **extra}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{standin.url}/chat/completions", json=body, headers=headers, timeout=20)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"[" * 100_000])
def test_bodies_that_are_no_json_object_are_400(standin: Standin, raw: bytes) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{standin.url}/chat/completions", content=raw, headers=headers, timeout=20)
    assert answer.status_code == 400


def test_max_tokens_cuts_the_answer(standin: Standin) -> None:
    with standin.client() as client:
        answer = client.chat.completions.create(model=MODEL, messages=ask(FIRST), max_tokens=27)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 27
    content = answer.choices[0].message.content or ""
    assert DOCUMENTS[FIRST].startswith(content)
    assert content != DOCUMENTS[FIRST]


def test_past_the_rate_limit_is_429_with_retry_after_and_no_charge(tmp_path: Path) -> None:
    running = start(tmp_path, "--requests-per-day", "2")
    try:
        with running.client() as client:
            for text in list(DOCUMENTS)[:2]:
                client.chat.completions.create(model=MODEL, messages=ask(text))
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model=MODEL, messages=ask(FIRST))
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 43_200
        assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        bill = running.get("/bill")
        assert bill["requests"] == 2
        assert bill["refused"] == {"429": 1}
    finally:
        stop(running)


def test_needs_a_key_and_a_corpus(tmp_path: Path) -> None:
    bad = tmp_path / "corpus.jsonl"
    bad.write_text('{"sha": 1}\n')
    command = [sys.executable, "-m", "loadtests.fake_cloud", "--corpus", str(bad)]
    environment = {name: value for name, value in os.environ.items() if name != "STANDIN_API_KEY"}
    keyless = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert keyless.returncode == 1
    assert "STANDIN_API_KEY" in keyless.stderr
    environment["STANDIN_API_KEY"] = KEY
    garbled = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert garbled.returncode == 1
    assert "corpus.jsonl:1" in garbled.stderr


def test_corpus_survives_a_round_trip_and_finds_by_message(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    save(file, DOCUMENTS.items())
    answers = load(file)
    assert look_up(answers, "Some instruction:\n" + FIRST).answer == DOCUMENTS[FIRST]
    assert look_up(answers, FIRST).known
    assert not look_up(answers, FIRST + " ").known


def test_pieces_lose_nothing() -> None:
    text = "Länge 23.45 mm \n\t\x00 𝔘🙂 end"
    assert "".join(pieces(text)) == text


def test_price_is_rounded_half_up_once() -> None:
    half = MODELS[MODEL].nano_usd(CloudTokens(prompt=1, cached=1, completion=0, reasoning=0))  # 37.5 nano-dollars
    assert half == 38
    assert MODELS[MODEL].nano_usd(CloudTokens(prompt=2, cached=2, completion=1, reasoning=0)) == 375


def test_bucket_refills_and_never_waits_for_what_fits() -> None:
    bucket = Bucket(limit=60, period_s=60.0)
    bucket.take(60, monotonic_s=0.0)
    assert bucket.remaining(0.0) == 0
    assert bucket.wait(10, 0.0) == pytest.approx(10.0)
    assert bucket.remaining(30.0) == 30
    assert bucket.wait(61, 30.0) == float("inf")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4801, "481ms"), (7.66, "7.66s"), (179.56, "2m59.56s"), (3723.0, "1h2m3s")]
)
def test_duration_is_written_as_groq_writes_it(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
