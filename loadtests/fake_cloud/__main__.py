"""`python -m loadtests.fake_cloud --corpus FILE`: run the fake cloud until SIGTERM or Ctrl-C.

It binds to 127.0.0.1 (port 0: the OS chooses) and announces itself with one JSON line {"url": base URL, "root", "pid"}.
The API key comes from the environment (STANDIN_API_KEY unless --key-env says otherwise), so that it stays out of argv.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from loadtests.fake_cloud.app import CloudSetup, build
from loadtests.fake_cloud.corpus import CorpusError, load


def main(
    corpus: Annotated[Path, typer.Option(help="JSON lines with the sha256 and the answer of each document.")],
    port: Annotated[int, typer.Option(help="0 lets the OS choose.", min=0, max=65_535)] = 0,
    announce: Annotated[str, typer.Option(help="File to write the address to, or 'stdout'.")] = "stdout",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "STANDIN_API_KEY",
    seed: Annotated[int, typer.Option(help="Seed of the latencies.")] = 1,
    latency: Annotated[float, typer.Option(help="Factor on all latencies; 0 answers at once.", min=0)] = 1.0,
    requests_per_day: Annotated[int, typer.Option(min=1)] = 500_000,
    tokens_per_minute: Annotated[int, typer.Option(min=1)] = 3_000_000,
) -> None:
    """Run a fake cloud that speaks Groq's API and answers documents from a corpus file."""
    key = os.environ.get(key_env, "")
    if not key:
        raise SystemExit(f"Set {key_env} to the API key that the fake cloud should accept.")
    try:
        answers = load(corpus)
    except (OSError, CorpusError) as error:
        raise SystemExit(f"Can't read the corpus: {error}") from error
    app = build(
        CloudSetup(
            key=key,
            answers=answers,
            seed=seed,
            latency=latency,
            requests_per_day=requests_per_day,
            tokens_per_minute=tokens_per_minute,
        )
    )
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    root = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # The socket listens already: a client that reads the announcement can connect, even if it waits to be accepted.
    _announce(announce, json.dumps({"url": f"{root}/openai/v1", "root": root, "pid": os.getpid()}))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def _announce(where: str, line: str) -> None:
    if where == "stdout":
        print(line, flush=True)
        return
    target = Path(where)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(line + "\n", encoding="utf-8")
    partial.replace(target)  # a reader sees the whole line or no file
    print(f"fake cloud announced in {where}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
