"""The router speaks TLS with the configured files, refuses others, and a reload loads renewed ones."""

from __future__ import annotations

import re
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spillway_router.config.settings import TlsPart
from spillway_router.config.tls import tls_problems
from spillway_router.testing.processes import eventually, running, write

PEM = serialization.Encoding.PEM


def certificate(folder: Path, name: str, password: str = "") -> TlsPart:
    """Make a certificate for 127.0.0.1 and its key."""
    part = TlsPart(certificate=folder / f"{name}.pem", key=folder / f"{name}.key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    part.certificate.write_bytes(signed.public_bytes(PEM))
    lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    part.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock))
    return part


def found(part: TlsPart) -> list[str]:
    return [f"{problem.where} {problem.problem}" for problem in tls_problems(part)]


def test_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    one, other = certificate(tmp_path, "one"), certificate(tmp_path, "other")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    assert list(tls_problems(None)) == found(one) == []
    cases = {
        "is not the key of": TlsPart(certificate=one.certificate, key=other.key),
        "No such file": TlsPart(certificate=one.certificate, key=tmp_path / "none"),
        "Is a directory": TlsPart(certificate=tmp_path, key=one.key),
        "is encrypted": certificate(tmp_path, "locked", "secret"),
        "are not a PEM certificate": TlsPart(certificate=text, key=text),
    }
    for words, part in cases.items():
        (problem,) = found(part)
        assert words in problem


def subject(url: str, trusted: Path) -> str:
    """Return the common name of the certificate that a new connection gets."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=str(trusted))
    plain = socket.create_connection((host, int(port)), 10)
    with plain, context.wrap_socket(plain, server_hostname=host) as tls:
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    (name,) = x509.load_der_x509_certificate(shown).subject
    return str(name.value)


def test_a_router_serves_tls_and_loads_a_renewed_certificate(tmp_path: Path) -> None:
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    live = TlsPart(certificate=tmp_path / "live.pem", key=tmp_path / "live.key")

    def use(part: TlsPart) -> None:
        live.certificate.write_bytes(part.certificate.read_bytes())
        live.key.write_bytes(part.key.read_bytes())

    use(first)
    path = write(tmp_path, {"tls": {"certificate": "live.pem", "key": "live.key"}, "keys": {"required": True}})
    with running("route", path) as router:
        url = router.url
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(first.certificate))
        with httpx.Client(base_url=url, verify=trusting, trust_env=False, timeout=20) as client:
            assert client.get("/health").json() == {"status": "ok"}
            long = {"messages": [{"role": "user", "content": "x" * 300_000}]}
            refused = client.post("/v1/chat/completions", json=long)  # its body is discarded after the answer
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
            too_long = client.get("/v1/models", headers={"x-long": "y" * 70_000})  # the router closes its connection
            assert too_long.status_code == 431
        with pytest.raises(httpx.ConnectError):  # nobody vouches for it
            httpx.get(f"{url}/health", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/health", trust_env=False)
        use(TlsPart(certificate=second.certificate, key=first.key))
        router.process.send_signal(signal.SIGHUP)
        router.says(re.compile("is not the key of"))
        assert subject(url, first.certificate) == "first"
        use(second)
        router.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: subject(url, second.certificate), ssl.SSLError) == "second"
