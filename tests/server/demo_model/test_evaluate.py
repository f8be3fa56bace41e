"""The evaluation against a server whose answers are known: an oracle over real HTTP, wrong on every third document."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from spillway_server.demo_model.documents import HELD_OUT_SEEDS, INSTRUCTION, canonical_json, generate
from spillway_server.demo_model.evaluate import EvaluationError, NoiseResult, evaluate, served_model, table

N = 30
ANSWERS = {
    INSTRUCTION + document.text: "no JSON" if index % 3 == 0 else canonical_json(document.truth)
    for index, document in enumerate(generate(seed) for seed in HELD_OUT_SEEDS[:N])
}


class Oracle(BaseHTTPRequestHandler):
    """Speaks just enough of the chat API; unknown reports get a 400."""

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "oracle"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = ANSWERS.get(body["messages"][0]["content"])
        if answer is None or body["model"] != "oracle" or body["temperature"] != 0:
            self._send(400, {"error": {"message": "unknown report"}})
            return
        message = {"role": "assistant", "content": answer}
        usage = {"prompt_tokens": 100, "completion_tokens": 50}
        self._send(200, {"choices": [{"message": message}], "usage": usage})

    def _send(self, status: int, body: dict[str, object]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the test's own report is enough."""


class OracleServer(ThreadingHTTPServer):
    """Room for all connections of the evaluation at once: the default backlog of 5 resets some on a busy machine."""

    request_queue_size = 128


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = OracleServer(("127.0.0.1", 0), Oracle)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_it_counts_exactly_the_right_answers(base_url: str) -> None:
    assert served_model(base_url) == "oracle"
    (result,) = evaluate(base_url, "oracle", N, ("clean",))
    assert result == NoiseResult(noise="clean", n=N, right=20, prompt_tokens=100.0, answer_tokens=50.0)
    assert "| clean | 30 | 66.7% |" in table([result])


def test_a_refusing_server_is_an_error_and_no_wrong_answer(base_url: str) -> None:
    with pytest.raises(EvaluationError, match=r"400.*unknown report"):
        evaluate(base_url, "oracle", 3, ("heavy",))


def test_no_server_is_an_error_that_says_so() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        base_url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        with pytest.raises(EvaluationError, match="is the server up"):
            evaluate(base_url, "demo", 1, ("clean",))
        with pytest.raises(EvaluationError, match="lists no model"):
            served_model(base_url)


@pytest.mark.parametrize("n", [0, -1, len(HELD_OUT_SEEDS) + 1])
def test_a_count_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n must be between 1"):
        evaluate("http://127.0.0.1/v1", "demo", n)


def test_the_interval_is_wilsons() -> None:
    """Wilson's interval for 297 of 300 at 95%, worked out by hand: 97.1% to 99.7%."""
    low, high = NoiseResult(noise="clean", n=300, right=297, prompt_tokens=0.0, answer_tokens=0.0).interval
    assert low == pytest.approx(0.9710, abs=5e-4)
    assert high == pytest.approx(0.9966, abs=5e-4)
    assert NoiseResult(noise="clean", n=10, right=10, prompt_tokens=0.0, answer_tokens=0.0).interval[1] == 1.0
