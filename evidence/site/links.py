"""Checks the built site: every link and every source of its pages leads to a file of the site and to an anchor there,
and nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""The elements whose address a browser loads by itself."""


class _Page(HTMLParser):
    """Collects the links, the loaded addresses and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {name for name in (values.get("id"), values.get("name")) if name}
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        address = values.get(_LOADING.get(tag, ""))
        if address and values.get("rel") != "canonical":
            self.loaded.append(address)


@cache
def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def dead_links(site: Path) -> list[str]:
    """Return the links of the site that lead nowhere, and what its pages would load from elsewhere, as PAGE: LINK."""
    faults = []
    for file in sorted(site.rglob("*.html")):
        page = _read(file)
        name = file.relative_to(site)
        faults += [f"{name}: {link}" for link in page.links if not _leads_somewhere(site, file, link)]
        faults += [f"{name}: loads {address}" for address in page.loaded if not _is_of_the_site(site, file, address)]
    return faults


def count_links(site: Path) -> int:
    """Return how many links and loaded addresses the pages have."""
    pages = [_read(file) for file in site.rglob("*.html")]
    return sum(len(page.links) + len(page.loaded) for page in pages)


def _target(site: Path, file: Path, path: str) -> Path:
    """Return the file that a path on a page names; the page of errors has paths from the root of the site."""
    folder, path = (site, path.lstrip("/")) if path.startswith("/") else (file.parent, path)
    return (folder / unquote(path)).resolve()


def _leads_somewhere(site: Path, file: Path, link: str) -> bool:
    """Return whether a link leads somewhere. Links to other sites are not followed: they need a network."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = _target(site, file, parts.path) if parts.path else file
    if not target.is_file():
        return False
    return not parts.fragment or target.suffix != ".html" or unquote(parts.fragment) in _read(target).anchors


def _is_of_the_site(site: Path, file: Path, address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return True
    return not parts.scheme and not parts.netloc and _target(site, file, parts.path).is_file()
