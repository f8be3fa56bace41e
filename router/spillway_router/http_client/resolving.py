"""A transport for httpx that looks names up as the pool does: each in a thread of its own.

httpx resolves names in the threads that the whole event loop shares. A few names that do not resolve occupy all of
them for seconds, and then no other name resolves, not even that of a healthy engine.
"""

from __future__ import annotations

import asyncio

import httpx

from spillway_router.http_client.dial import Resolver, is_address

_PORTS = {"http": 80, "https": 443}


class ResolvingTransport(httpx.AsyncBaseTransport):
    """Sends requests through `inner`, to the address of their host instead of its name.

    The Host header and the name in the certificate stay those of the name. An address that failed is tried last next
    time.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._resolvers: dict[tuple[str, int], Resolver] = {}
        self._failed: dict[str, float] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. Raises httpx.ConnectError if the name does not resolve or no address answers."""
        host = request.url.host
        if is_address(host):
            return await self._inner.handle_async_request(request)
        port = request.url.port or _PORTS[request.url.scheme]
        resolver = self._resolvers.setdefault((host, port), Resolver(host, port))
        loop = asyncio.get_running_loop()
        try:
            addresses = await resolver.addresses(loop)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        failure: httpx.TransportError = httpx.ConnectError("the name has no address", request=request)
        hosts = dict.fromkeys(str(address.sockaddr[0]) for address in addresses)
        for address in sorted(hosts, key=lambda host: self._failed.get(host, 0.0)):
            try:
                response = await self._inner.handle_async_request(_toward(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._failed[address] = loop.time()
                failure = error
            except BaseException:  # the caller's time is up, perhaps because this address swallows packets
                self._failed[address] = loop.time()
                raise
            else:
                self._failed.pop(address, None)
                return response
        resolver.forget()
        raise failure

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


def _toward(address: str, request: httpx.Request) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
