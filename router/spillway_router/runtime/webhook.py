"""Posts signed messages to a webhook of the configuration."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spillway_router.config.derived import Webhook

if TYPE_CHECKING:
    import httpx

_RETRIED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it is sent. Receivers drop one whose id they have seen; `longest_wait_s` bounds their wish."""

    id: str
    body: bytes
    sent_s: int
    timeout_s: float
    longest_wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """Why an attempt failed. `retry_after_s`: the wait that the receiver asked for; None: it must not be repeated."""

    problem: str
    retry_after_s: float | None


def webhook_client() -> httpx.AsyncClient:
    """Return a client for webhooks. Proxies of the environment are ignored: the receiver is the configured one."""
    import httpx  # here, since it takes 6 MiB and most routers post nothing

    from spillway_router.http_client.resolving import ResolvingTransport

    return httpx.AsyncClient(
        transport=ResolvingTransport(httpx.AsyncHTTPTransport(trust_env=False)),
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113 - every attempt is bounded
    )


async def post_once(
    client: httpx.AsyncClient, webhook: Webhook, message: Delivery, setting: str
) -> FailedAttempt | None:
    """Post a message once. Return None if the receiver accepted it. `setting` is where the URL is configured."""
    import httpx

    headers = {"content-type": "application/json", "x-spillway-delivery": message.id}
    if webhook.secret:
        headers["x-spillway-signature"] = signature(webhook.secret, message.sent_s, message.body)
    try:
        async with (
            asyncio.timeout(message.timeout_s),
            client.stream("POST", webhook.url, content=message.body, headers=headers) as response,
        ):
            status, retry_after = response.status_code, response.headers.get("retry-after", "")
    except TimeoutError:
        return FailedAttempt(f"no answer within {message.timeout_s:g} s", 0.0)
    except httpx.TransportError as error:
        return FailedAttempt(type(error).__name__, 0.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return FailedAttempt(f"the request can't be sent ({type(error).__name__})", None)
    if 200 <= status < 300:
        return None
    if status >= 500 or status in _RETRIED:
        retry_after_s = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 8 else 0.0
        return FailedAttempt(f"HTTP {status}", min(retry_after_s, message.longest_wait_s))
    return FailedAttempt(f"HTTP {status}: correct {setting}", None)


def signature(secret: str, sent_s: int, body: bytes) -> str:
    """Return the value of the signature header for a body sent at `sent_s` (epoch seconds)."""
    digest = hmac.new(secret.encode(), b"%d." % sent_s + body, hashlib.sha256).hexdigest()
    return f"t={sent_s},v1={digest}"
