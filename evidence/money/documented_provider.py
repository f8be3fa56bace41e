"""An HTTP server around `documented.py`: POST /NAME/v1/ENDPOINT bills as the provider of that name documents it.

GET /bill?from=N returns the lines from number N on, as [backend, id of the call, nano-dollars].

    python -m evidence.money.documented_provider SEED
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from evidence.money.documented import MODELS, RefusedError, answer_of, bill_of

Message = MutableMapping[str, Any]


class DocumentedProviders:
    """The ASGI application."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.lines: list[tuple[str, str, int]] = []
        """The bill: backend, id of the call, nano-dollars."""

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, answer = self._answer(scope, body)
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, scope: Message, body: bytes) -> tuple[int, bytes]:
        if scope["path"] == "/bill":
            since = int(parse_qs(scope["query_string"].decode()).get("from", ["0"])[0])
            return 200, json.dumps(self.lines[since:]).encode()
        _, name, _, endpoint = scope["path"].split("/", 3)
        sold, path = MODELS[name], f"/{endpoint}"
        call = dict(scope["headers"]).get(b"x-client-request-id", b"").decode()
        try:
            bill = bill_of(sold, path, orjson.loads(body), self._rng)
        except RefusedError as error:
            return 404, json.dumps({"error": {"message": str(error), "code": 404}}).encode()
        self.lines.append((name, call, bill.nano))
        return 200, json.dumps(answer_of(sold, path, bill)).encode()


def backends(url: str, model_prices: bool = True) -> list[dict[str, Any]]:
    """Return `backends:` for the providers behind this URL."""
    rows: list[dict[str, Any]] = []
    for name, sold in MODELS.items():
        row: dict[str, Any] = {
            "name": name,
            "provider": sold.provider,
            "base_url": f"{url}/{name}/v1",
            "api_key": "k",
            "model": sold.model,
        }
        if sold.provider in ("openrouter", "generic") and model_prices:
            row["price"] = {"input_per_million": sold.input, "output_per_million": sold.output}
            if sold.fee_stated:
                row["price"]["per_request"] = sold.request_fee
        rows.append(row)
    return rows


def main(seed: int) -> None:
    """Serve on a free port of the loopback; print the URL first."""
    import socket

    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(DocumentedProviders(seed), lifespan="off", access_log=False, log_config=None, ws="none")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(int(sys.argv[1]))
