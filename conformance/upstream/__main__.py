"""`python -m conformance.upstream --model NAME`: serve the scripted upstream on a free port of loopback and print its
address.
"""

from __future__ import annotations

import argparse
import socket
import sys

import uvicorn

from conformance.upstream.app import build


def main(arguments: list[str]) -> int:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m conformance.upstream", description=(__doc__ or "").strip())
    parser.add_argument("--model", action="append", default=[], help="a model that it lists; repeat")
    options = parser.parse_args(arguments)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(f"listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = build(tuple(options.model) or ("scripted",))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
