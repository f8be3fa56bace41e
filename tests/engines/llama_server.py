"""Serve a GGUF file with llama.cpp's own server until SIGTERM; prints its address as the first line.

Run by the Python of .venv-engines:  python llama_server.py FILE [--port N] [--slots N] [--context N] [--embeddings]
[--no-metrics]. The demo model's file starts in a fraction of a second.
"""

from __future__ import annotations

import argparse
import signal

import xllamacpp


def main() -> None:
    """Start the server and wait."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--no-metrics", action="store_true")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.file
    params.hostnames = ["127.0.0.1"]
    params.port, params.n_parallel, params.n_ctx = options.port, options.slots, options.context
    params.endpoint_metrics, params.endpoint_slots = not options.no_metrics, True
    params.model_alias = {"demo"}
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main()
