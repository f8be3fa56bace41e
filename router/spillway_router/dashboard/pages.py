"""The templates of the pages, and the headers that every page is sent with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from spillway_router.core.printable import printable
from spillway_router.dashboard.admin_pages import field_text

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
"""No script or style is in a page itself, and nothing comes from elsewhere."""
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "vary": "accept, cookie",
    # With no-referrer, which other answers have, browsers send forms without saying where they are from.
    "referrer-policy": "same-origin",
}
MEDIA_TYPES: Mapping[str, str] = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
    "LICENSES.txt": "text/plain; charset=utf-8",
}
"""The files that browsers may fetch."""


class Pages:
    """Renders templates. Every value is escaped, and marks that turn the direction of writing are shown as escapes, so
    that no name looks like another one; what a form sends back needs the filter `exact`, which keeps them. The names of
    static files get their hash, so that browsers keep them until they change."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_shown,
        )
        self._hashes: Mapping[str, str] = json.loads((STATIC / "bundle.json").read_text(encoding="utf-8"))["results"]
        self._environment.globals["static"] = self.address_of
        self._environment.filters["field_text"] = field_text
        self._environment.filters["exact"] = escape

    def address_of(self, name: str) -> str:
        """Return the address of a static file."""
        return f"/static/{name}?v={self._hashes.get(name, '')[:12]}"

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a page."""
        return self._environment.get_template(template).render(values)


def _shown(value: Any) -> Any:
    return printable(value, keeps="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value
