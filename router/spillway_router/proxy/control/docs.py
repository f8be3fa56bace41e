"""`/openapi.json`, and `/docs`, which shows it as one page that needs neither scripts nor anybody else's server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import READER_ROLES

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
details{border:1px solid #8884;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{overflow-x:auto;background:#8881;padding:.6rem}
b{display:inline-block;min-width:4.5rem}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#14171a}}
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs(api: FastAPI, services: Services) -> None:
    """Add the description of the API for programs and for people."""

    @api.get("/openapi.json", include_in_schema=False)
    async def describe(request: Request) -> dict[str, Any]:
        caller_of(services, request, READER_ROLES)
        return api.openapi()

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        caller_of(services, request, READER_ROLES)
        return HTMLResponse(docs_page(api.openapi()), headers={"content-security-policy": _POLICY})


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page that shows an OpenAPI description."""
    title = f"{document['info']['title']} {document['info']['version']}"
    routes = "".join(_routes(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: HTTP API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{routes}</body></html>"
    )


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield (
                f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> "
                f"{escape(operation.get('summary', ''))}</summary>{''.join(_parts(operation))}</details>"
            )


def _parts(operation: Mapping[str, Any]) -> Iterator[str]:
    if operation.get("description"):
        yield f"<p>{escape(operation['description'])}</p>"
    for parameter in operation.get("parameters", ()):
        detail = escape(parameter.get("description", ""))
        yield f"<p><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}): {detail}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = escape(json.dumps(content.get("schema", {}), indent=1))
        yield f"<p>Body, <code>{escape(kind)}</code>:</p><pre>{schema}</pre>"
    for status, response in operation.get("responses", {}).items():
        yield f"<p><code>{escape(status)}</code> {escape(response.get('description', ''))}</p>"
