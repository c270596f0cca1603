"""httpx's own transport, one a request: `AFTERWORD_HTTP_TRANSPORT=httpx`, for when aiohttp's insides have moved.

No connection serves two requests: httpx hands a response that came unasked, in the packet of the one before it, to the
next request, which may be another tenant's. It also has no pool then, whose cost grows with the connections in it.
The connect timeout holds for TCP and for TLS each, and not for a proxy that takes CONNECT and says nothing.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx


class OneShotTransport(httpx.AsyncBaseTransport):
    """A connection a request. Calls `extensions["connected"]` as `net.transport` does."""

    def __init__(self, context: ssl.SSLContext, *, proxy: str | None = None) -> None:
        self._context = context
        secure = proxy is not None and proxy.startswith("https:")
        self._proxy = None if proxy is None else httpx.Proxy(proxy, ssl_context=context if secure else None)
        self._limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the answer once its head is there."""
        connected: Callable[[], None] = request.extensions.get("connected", _ignore)

        async def trace(event: str, details: dict[str, Any]) -> None:
            # Over a proxy, CONNECT is a request as well; it does not reach the endpoint.
            if event == "http11.send_request_headers.started" and details["request"].method != b"CONNECT":
                connected()

        request.extensions = {**request.extensions, "trace": trace}
        transport = httpx.AsyncHTTPTransport(
            verify=self._context, trust_env=False, proxy=self._proxy, limits=self._limits
        )
        try:
            response = await transport.handle_async_request(request)
        except OSError as error:  # a TLS alert that comes after the handshake passes httpcore unmapped
            await transport.aclose()
            raise httpx.ReadError("the connection was lost") from error
        except BaseException:
            await transport.aclose()
            raise
        response.headers.pop("location", None)  # not followed; httpx would fail on a bad one
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(transport, response.stream)
        return response


class _Body(httpx.AsyncByteStream):
    """One answer's bytes; its transport ends with it."""

    def __init__(self, transport: httpx.AsyncHTTPTransport, stream: httpx.AsyncByteStream) -> None:
        self._transport = transport
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except OSError as error:
            raise httpx.ReadError("the connection was lost") from error

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._transport.aclose()


def _ignore() -> None:
    pass
