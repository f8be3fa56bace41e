"""`spillway push`: bring a converted model, a GGUF file or an adapter to where another machine can fetch it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spillway_server import present
from spillway_server.obstacle import Obstacle
from spillway_server.stores.destination import bring

_Source = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A converted folder, a LoRA adapter's folder, or a GGUF file.")
]
_Place = Annotated[
    str, typer.Argument(metavar="PLACE", help="s3://BUCKET/PREFIX, or hub:OWNER/NAME (a private repository).")
]
_Endpoint = Annotated[
    str, typer.Option(help="The object store's address, where it is not Amazon's. The default is AWS_ENDPOINT_URL.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def push(source: _Source, place: _Place, endpoint: _Endpoint = "", as_json: _AsJson = False) -> None:
    """Upload a model with the digests of its files. An interrupted upload goes on where it was; serve it with
    `spillway serve --model PLACE`, or rent a machine for it with `spillway deploy TARGET --model PLACE`."""
    brought = bring(source.expanduser(), place, lambda line: typer.echo(line, err=True), endpoint)
    if isinstance(brought, Obstacle):
        present.end_at_obstacle(brought, as_json)
    if as_json:
        typer.echo(json.dumps({"model": brought.model, "files": brought.files, "bytes": brought.size,
                               "digest": brought.digest}))  # fmt: skip
    else:
        typer.echo(f"{brought.model}: {brought.files} files, {brought.size:,} bytes, digest {brought.digest[:12]}")
