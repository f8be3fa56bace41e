"""Fetching a price file: https only, no way into the own network by a redirect, bounded bytes and seconds."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spillway_router.prices.download import DownloadLimits, download, is_url
from spillway_router.prices.rows import PriceError

CERTIFICATE = Path(__file__).parent / "data" / "localhost.pem"
"""A self-signed certificate for localhost, with its key: it secures nothing."""
LIMITS = DownloadLimits(1024, 20.0)


class _Site(ThreadingHTTPServer):
    """Serves `pages`: path -> (status, body or location)."""

    daemon_threads = True
    pages: Mapping[str, tuple[int, str]]
    release: threading.Event


class _Handler(BaseHTTPRequestHandler):
    server: _Site

    def do_GET(self) -> None:
        status, text = self.server.pages[self.path]
        if text == "never":
            self.server.release.wait(30)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", text)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def site(pages: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    """Serve pages over TLS on localhost while the block runs; yield the root address."""
    server = _Site(("127.0.0.1", 0), _Handler)
    server.pages, server.release = pages, threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


def test_a_file_comes_over_https_from_where_the_user_says() -> None:
    with site({"/prices.json?x=1": (200, "{}")}) as root:
        assert download(f"{root}/prices.json?x=1", LIMITS, trusting()) == b"{}"


def test_a_certificate_that_nobody_signed_is_refused() -> None:
    with site({"/": (200, "{}")}) as root, pytest.raises(PriceError, match=r"can't be downloaded.*certificate"):
        download(f"{root}/", LIMITS)


@pytest.mark.parametrize("url", ["http://localhost/p", "ftp://localhost/p", "file:///etc/passwd", "https://", "x://y"])
def test_only_https_is_fetched(url: str) -> None:
    assert is_url(url)
    with pytest.raises(PriceError, match="over https"):
        download(url, LIMITS)


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1:1/", "https://10.0.0.8/", "https://[::1]/", "https://localhost/"]
)
def test_a_redirect_leads_to_no_private_address(target: str) -> None:
    with site({"/": (302, target)}) as root, pytest.raises(PriceError, match="which is not public"):
        download(f"{root}/", LIMITS, trusting())


def test_a_redirect_leads_to_no_other_scheme() -> None:
    with site({"/": (302, "http://example.com/")}) as root, pytest.raises(PriceError, match="over https"):
        download(f"{root}/", LIMITS, trusting())


def test_a_file_that_is_too_large_is_not_read_to_its_end() -> None:
    with site({"/": (200, "x" * 1025)}) as root, pytest.raises(PriceError, match="more than 0 MB"):
        download(f"{root}/", LIMITS, trusting())


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with site({"/": (200, "never")}) as root, pytest.raises(PriceError, match=r"no answer within 0\.3 s"):
        download(f"{root}/", DownloadLimits(1024, 0.3), trusting())


def test_an_error_of_the_server_is_named() -> None:
    with site({"/": (404, "no")}) as root, pytest.raises(PriceError, match="HTTP 404"):
        download(f"{root}/", LIMITS, trusting())


def test_a_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(PriceError, match=r"can't be downloaded.*nowhere\.invalid"):
        download("https://nowhere.invalid/prices.json", LIMITS)
