"""A tiny stand-in for vLLM's HTTP side, as a real process: one token or embedding, metrics, orderly end.

Usage: fake_engine.py PORT|--uds PATH FOLDER. What it does is told by files in FOLDER, read at each request:
`status` (exit with this status at once, before listening), `in_flight` (running requests that /metrics tells),
`deaf` (ignore SIGTERM), `stuck` (/metrics tells running requests and no progress), `child` (start a child that
ignores SIGTERM in a session of its own, its pid written to `child.pid`), `mute` (/metrics never answers), `waiting`
(waiting requests that /metrics tells), `page` (what /metrics tells instead), `hung` (no token comes). `starts` gets one
line per start with the pid.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

FOLDER = Path(sys.argv[-1])
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="demo"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="demo"}} {waiting}
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{{engine="0",model_name="demo"}} 5.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{{engine="0",model_name="demo"}} 7.0
"""


def said(name: str) -> str | None:
    path = FOLDER / name
    return path.read_text() if path.exists() else None


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return

    def address_string(self) -> str:
        return "client"

    def do_GET(self) -> None:
        if said("mute") is not None:
            threading.Event().wait(60)
        if (page := said("page")) is not None:
            self._answer(page.encode(), "text/plain")
            return
        running = "1" if said("stuck") is not None else (said("in_flight") or "0")
        self._answer(METRICS.format(running=running, waiting=said("waiting") or "0").encode(), "text/plain")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        (FOLDER / "asked").write_text(json.dumps({"body": body, "key": self.headers.get("authorization")}))
        if said("hung") is not None:
            threading.Event().wait(60)
        if self.path == "/v1/embeddings":
            vector = {"index": 0, "object": "embedding", "embedding": [0.6, 0.8]}
            self._answer(json.dumps({"data": [vector]}).encode(), "application/json")
            return
        choice = {"index": 0, "text": "1", "finish_reason": "length"}
        self._answer(json.dumps({"choices": [choice]}).encode(), "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    print("Initializing a V1 LLM engine (fake)", flush=True)
    status = said("status")
    if status is not None:
        print(said("last_words") or "no last words", flush=True)
        sys.exit(int(status))
    if said("child") is not None:
        child = subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True)
        (FOLDER / "child.pid").write_text(str(child.pid))
    if said("deaf") is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    where = sys.argv[1:-1]
    server = UnixServer(where[1], Handler) if where[0] == "--uds" else TcpServer(("127.0.0.1", int(where[0])), Handler)
    print("Starting vLLM server on here", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
