"""Made-up HTTP requests, each with what must never follow from it.

A request is one of four kinds. `stranger` has no valid key, and is answered by neither a backend nor a 2xx. `visitor`
has a key of the role inference on a route of another role, and gets no 2xx. `private` is marked as private in a way
that the changes leave alone, and never reaches a cloud. `known` has a key and may do what it likes. All of them are
answered, and never by a 5xx of the router's own making.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

from evidence.fuzz import bodies

Kind = Literal["stranger", "visitor", "private", "known"]
KINDS: Final[tuple[Kind, ...]] = ("stranger", "visitor", "private", "known")

INFERENCE: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
OWN: Final = ("/v1/route/explain", "/v1/feedback", "/v1/documents/extract", "/v1/messages/count_tokens")
READING: Final = (
    "/v1/models",
    "/v1/models/auto",
    "/v1/requests/req_1",
    "/docs",
    "/openapi.json",
    "/v1/responses/resp_1",
)
GUARDED: Final = ("/admin/reload", "/v1/reviews", "/v1/reviews/rev_1", "/v1/usage", "/metrics")
ALLOWED: Final = frozenset({"/", "/health", "/ping", "/ready"})
MODELS: Final = ("auto", "auto", "auto", "cloud/cloud-m", "local/demo", "auto:cheapest", "gpt-4o", "auto:", "/")
HINTS: Final = (
    "x-spillway-privacy", "x-spillway-route", "x-spillway-min-confidence", "x-spillway-slo-ttft-ms",
    "x-spillway-max-cost-usd", "x-spillway-usage-cost", "x-session-id", "idempotency-key", "x-spillway-better-than",
    "x-spillway-provider", "x-spillway-provider-key", "x-spillway-unknown", "x-request-id", "accept", "expect",
    "content-type", "content-encoding", "traceparent", "openai-beta", "anthropic-version", "x-forwarded-for", "origin",
    "cookie", "range", "te", "upgrade", "x-spillway-probe", "accept-encoding", "if-none-match", "forwarded",
)  # fmt: skip
VALUES: Final = (
    b"", b" ", b"0", b"-1", b"1e400", b"nan", b"true", b"any", b"local-only", b"local", b"cloud", b"auto", b"*",
    b"a" * 3000,
    b"\xc3\xa9", b"\xff\xfe", b"gzip", b"identity", b"br", b"application/json; charset=utf-16", b"100-continue", b"h2c",
    b"127.0.0.1", b"text/plain", b"0" * 400, b"'\"<>", b"req_1", b"\x7f", b"a,b;c=d", b"multipart/form-data",
)  # fmt: skip
PRIVATE_MARKS: Final = (
    b"local-only",
    b"LOCAL-ONLY",
    b"",
    b"yes",
    b"\xff",
    b"a" * 900,
    b"0",
    b"private,any",
    b"localonly",
)
ODD_FIELDS: Final = (
    (b"transfer-encoding", b"chunked"), (b"content-length", b"3"), (b"bad header", b"x"), (b"", b"x"),
    (b"a" * 70_000, b"x"), (b"x", b"y\r\n folded"), (b"x\r\ny", b""),
)  # fmt: skip
METHODS: Final = (b"GET", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"QUERY", b"post", b"TRACE")


@dataclass(frozen=True, slots=True)
class Keys:
    """The secret of a valid key of the role inference."""

    inference: bytes


@dataclass(frozen=True, slots=True)
class FuzzedRequest:
    """The bytes of one request, what it is, and the tag in its body by which its arrival at a backend is known."""

    kind: Kind
    tag: str
    path: str
    raw: bytes
    closes: bool
    """Whether its framing is wrong, so that the connection may end without an answer to it."""


def made_up(rng: random.Random, keys: Keys) -> FuzzedRequest:
    """Return a request."""
    kind = rng.choices(KINDS, (4, 1, 3, 4))[0]
    tag = f"tag-{rng.getrandbits(64):016x}"
    if kind == "visitor":
        path, method = rng.choice(GUARDED), rng.choice((b"GET", b"POST", *METHODS))
    else:
        path = rng.choice(INFERENCE * 4 + OWN + (READING if kind != "private" else ()))
        method = rng.choice((b"POST",) * 12 + METHODS)
    body, headers = _body(kind, path, tag, rng)
    headers += [(b"authorization", b"Bearer " + keys.inference)] if kind != "stranger" else _no_key(rng, keys)
    spared = {b"x-spillway-privacy"} if kind == "private" else set()
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        name = rng.choice(HINTS).encode()
        if name not in spared:
            headers.append((name, rng.choice(VALUES)))
    target = _target(path, rng) if kind == "stranger" else path.encode()
    raw, closes = _framed(method, target, headers, body, rng)
    return FuzzedRequest(kind=kind, tag=tag, path=path, raw=raw, closes=closes)


def _body(kind: Kind, path: str, tag: str, rng: random.Random) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the body and the headers that mark it. What marks a private request is left alone."""
    body = bodies.valid(path, tag, rng.choice(MODELS))
    if rng.random() < 0.3:
        body["stream"] = True
    if kind != "private":
        data = bodies.encoded(bodies.changed(body, rng))
        return (bodies.broken(data, rng) if rng.random() < 0.25 else data), []
    if rng.random() < 0.6:
        data = bodies.encoded(bodies.changed(body, rng))
        return (bodies.broken(data, rng) if rng.random() < 0.2 else data), [
            (b"x-spillway-privacy", rng.choice(PRIVATE_MARKS))
        ]
    if rng.random() < 0.5:
        marked = bodies.changed(body, rng, spare=frozenset({"metadata"}))
        marked["metadata"] = {"privacy": rng.choice(("local-only", "", None, 0, [], {"a": 1}, "ANYTHING"))}
        return bodies.encoded(marked), []
    # The word that makes it private is beside the tag, so that it is there wherever the tag is.
    return bodies.encoded(bodies.changed(bodies.valid(path, f"password {tag}", "auto"), rng)), []


def _no_key(rng: random.Random, keys: Keys) -> list[tuple[bytes, bytes]]:
    """Return headers without a valid key, many of which look like one."""
    key = keys.inference
    spoilt = bytearray(key)
    spoilt[rng.randrange(len(key))] ^= 1
    almost = rng.choice(
        (key[:-1], key + b"a", bytes(spoilt), key.upper(), key[::-1], b"\xff" + key, b"a" * 4000, key[:12])
    )
    forms: tuple[list[tuple[bytes, bytes]], ...] = (
        [],
        [(b"authorization", b"Bearer " + almost)],
        [(b"authorization", b"Basic " + key)],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer  \x00" + key)],
        [(b"x-api-key", almost)],
        [(b"api-key", almost), (b"authorization", b"Bearer " + almost)],
        [(b"x-api-key", almost), (b"authorization", b"Bearer " + key)],
        [(b"cookie", b"authorization=Bearer " + key)],
        [(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1")],
        [(b"proxy-authorization", b"Bearer " + key)],
        [(b"authorization_", b"Bearer " + key)],
        [(b"x-original-url", b"/health"), (b"x-rewrite-url", b"/health")],
    )
    return list(rng.choice(forms))


def _target(path: str, rng: random.Random) -> bytes:
    """Return the target, often in another spelling."""
    forms = (
        path, path, path, path + "/", "/" + path, path.replace("/v1", "/v1/v1"), path.removeprefix("/v1"), path.upper(),
        "/health/.." + path, "/health;" + path, path + "?key=1", path + "?path=/health", "/health#" + path,
        path + "%00",
        path.replace("/", "%2f"), path.replace("v1", "%761"), "http://x" + path, "/./" + path, path + "/../../health",
        "//health" + path, path + "\\..\\health", path + ".json", path + "?" + "a" * 3000,
    )  # fmt: skip
    return rng.choice(forms).encode()


def _framed(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, rng: random.Random
) -> tuple[bytes, bool]:
    """Return the bytes of the request, and whether its framing is wrong."""
    headers = [(b"host", b"localhost"), *headers]
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/json"))
    lucky = rng.random()
    length, version, odd = b"%d" % len(body), b"HTTP/1.1", lucky < 0.03
    if odd:
        length = rng.choice((b"-1", b"+5", b"0x10", b"", b"1 2", b"9" * 40, b"\xd9\xa5", b"5, 6"))
    elif lucky < 0.10:
        sizes = [body[i : i + 97] for i in range(0, len(body), 97)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in sizes) + b"0\r\n\r\n"
        length = b""
    fields = headers + ([(b"content-length", length)] if length or odd else [(b"transfer-encoding", b"chunked")])
    if lucky > 0.97:
        odd = True
        fields.append(rng.choice(ODD_FIELDS))
        version = rng.choice((version, b"HTTP/1.0", b"HTTP/2.0", b"HTP/1.1", b""))
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    raw = b"%b %b %b\r\n%b\r\n%b" % (method, target, version, lines, body)
    # A header may ask for another end of the connection, or make the parser refuse the request.
    odd = odd or any(
        name in (b"expect", b"upgrade", b"te") or b"\x7f" in value or b"\x00" in value for name, value in fields
    )
    return raw, odd
