"""Fetch a price file from an address that the user names.

The address is https. A redirect is followed only to a public address, so that a foreign server can't make this machine
ask one of its own network; the user's own address may be in that network. Bytes and seconds are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from spillway_router.http_client.dial import Resolver
from spillway_router.prices.rows import PriceError

LIMIT_S = 60.0
"""Seconds that a download may take in all, redirects included."""
MOST_REDIRECTS = 5
_PORT = 443
_TIMEOUT = httpx.Timeout(LIMIT_S, connect=10.0)


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Most bytes, and seconds in all."""

    most_bytes: int
    limit_s: float = LIMIT_S


def is_url(text: str) -> bool:
    """Return whether a source is an address and not the name of a file."""
    return "://" in text


def download(url: str, limits: DownloadLimits, tls: ssl.SSLContext | None = None) -> bytes:
    """Return the content behind an https address. Raises PriceError, which says what to do."""

    async def within_limit() -> bytes:
        async with asyncio.timeout(limits.limit_s):
            return await _follow(url, limits.most_bytes, tls or ssl.create_default_context())

    try:
        return asyncio.run(within_limit())
    except TimeoutError:
        raise PriceError(
            f"no answer within {limits.limit_s:g} s; download the file yourself and give its name"
        ) from None
    except (httpx.HTTPError, OSError) as error:
        raise PriceError(f"can't be downloaded: {error or type(error).__name__}") from None


async def _follow(url: str, most_bytes: int, tls: ssl.SSLContext) -> bytes:
    target = _https(url)
    transport = httpx.AsyncHTTPTransport(verify=tls)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=_TIMEOUT) as client:
        for redirects in range(MOST_REDIRECTS + 1):
            response = await _answer(client, target, await _addresses(target, anywhere=redirects == 0))
            try:
                if not response.has_redirect_location:
                    return await _body(response, most_bytes)
                target = _https(str(target.join(response.headers["location"])))
            finally:
                await response.aclose()
    raise PriceError(f"more than {MOST_REDIRECTS} redirects; give the final address")


def _https(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PriceError(f"not an address: {error}") from None
    if target.scheme != "https" or not target.host:
        raise PriceError("prices are only fetched over https; download the file yourself and give its name")
    return target


async def _addresses(target: httpx.URL, *, anywhere: bool) -> Sequence[str]:
    """Return the addresses of the target's host. Raises PriceError if one of them is not public, unless `anywhere`."""
    looked_up = await Resolver(target.host, target.port or _PORT).addresses(asyncio.get_running_loop())
    addresses = [str(address.sockaddr[0]) for address in looked_up]
    for address in () if anywhere else addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise PriceError(f"the address redirects to {target.host}, which is not public ({address})")
    return addresses


async def _answer(client: httpx.AsyncClient, target: httpx.URL, addresses: Sequence[str]) -> httpx.Response:
    """Ask the first address that can be reached. The name isn't looked up again: what was checked is what is asked."""
    failure: httpx.TransportError = httpx.ConnectError(f"{target.host} has no address")
    for address in addresses:
        request = client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={"host": target.netloc.decode("ascii"), "accept": "application/json"},
            extensions={"sni_hostname": target.host},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
    raise failure


async def _body(response: httpx.Response, most_bytes: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise PriceError(f"the server answered HTTP {response.status_code}; check the address")
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most_bytes:
            raise PriceError(f"the file has more than {most_bytes // 1024 // 1024} MB; use a price list")
    return bytes(body)
