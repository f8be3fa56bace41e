"""The certificate and the key with which the router listens: loaded, checked, and renewed without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import TlsPart


class _EncryptedKeyError(OSError):
    """The key has a password, for which OpenSSL would ask on the terminal."""


def tls_context(part: TlsPart) -> ssl.SSLContext:
    """Return what a listener needs. Raises what `renew` raises."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # TLS 1.2 or newer
    context.set_alpn_protocols(["http/1.1"])
    renew(context, part)
    return context


def renew(context: ssl.SSLContext, part: TlsPart) -> None:
    """Load the files into a context that may be in use: connections from now on get them.

    Raises OSError, of which ssl.SSLError is one, if they can't be read or don't belong together. Check them with
    `tls_problems` first: what OpenSSL loads of a broken pair stays loaded.
    """
    context.load_cert_chain(part.certificate, part.key, password=_no_password)


def tls_problems(part: TlsPart | None) -> Iterator[ConfigProblem]:
    """Yield what keeps a router from listening with these files."""
    if part is None:
        return
    for name, path in (("certificate", part.certificate), ("key", part.key)):
        try:
            path.read_bytes()
        except OSError as error:
            yield ConfigProblem(f"tls.{name}", 0, f"{path} can't be read: {error.strerror or error}")
            return
    try:
        tls_context(part)
    except _EncryptedKeyError:
        yield ConfigProblem(
            "tls.key", 0, f"{part.key} is encrypted; write it without a password, readable by nobody else"
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield ConfigProblem("tls.key", 0, f"{part.key} is not the key of {part.certificate}")
        else:
            files = f"{part.certificate} and {part.key}"
            yield ConfigProblem("tls.certificate", 0, f"{files} are not a PEM certificate chain and its key")


def _no_password() -> str:
    raise _EncryptedKeyError
