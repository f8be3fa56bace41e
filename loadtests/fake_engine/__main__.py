"""`python -m loadtests.fake_engine`: run the fake engine until Ctrl-C or SIGTERM, after which running requests finish.

It binds to 127.0.0.1 unless told otherwise (port 0: the OS chooses) and announces itself with one JSON line {"url":
base URL, "root", "pid"}.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from loadtests.fake_cloud.corpus import CorpusError, load
from loadtests.fake_engine.app import EngineSetup, FakeVllm
from loadtests.fake_engine.batch import Batch
from loadtests.fake_engine.live import LiveEngine
from spillway_router.core.replay.engine import EngineModel

DRAIN_S = 30


def main(
    host: Annotated[str, typer.Option(help="An address of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 lets the OS choose.", min=0, max=65_535)] = 0,
    model: Annotated[str, typer.Option(help="Name of the served model.")] = "demo",
    corpus: Annotated[Path | None, typer.Option(help="Answers by document, in the fake cloud's corpus format.")] = None,
    scale: Annotated[float, typer.Option(help="Factor on all times: with 4 it is a quarter as fast.", min=0.01)] = 1.0,
    sequences: Annotated[int, typer.Option(help="Requests that run at once.", min=1)] = 256,
    kv_tokens: Annotated[int, typer.Option(help="Tokens the KV cache holds.", min=1024)] = 200_000,
    queue_cap: Annotated[int, typer.Option(help="Requests that may wait; further requests get 503.", min=1)] = 512,
    stream_interval: Annotated[int, typer.Option(help="Tokens per event after the first.", min=1)] = 1,
    cut_every: Annotated[int, typer.Option(help="Seeded fault: break off one stream in N; 0: none.", min=0)] = 0,
) -> None:
    """Run an engine that batches like vLLM on the step times of an A100 with Llama-3-8B, without a GPU."""
    try:
        answers = {} if corpus is None else load(corpus)
    except (OSError, CorpusError) as error:
        raise SystemExit(f"Can't read the corpus: {error}") from error
    curve = replace(EngineModel(), sequences=sequences, kv_capacity_tokens=kv_tokens)
    engine = LiveEngine(Batch(curve), scale, queue_cap)
    listener = socket.create_server((host, port), backlog=1024)
    root = f"http://{host}:{listener.getsockname()[1]}"
    print(json.dumps({"url": f"{root}/v1", "root": root, "pid": os.getpid()}), flush=True)
    app = FakeVllm(engine, EngineSetup(model, answers, stream_interval, cut_every))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_S)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(main)
