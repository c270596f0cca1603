"""The fallback `AFTERWORD_HTTP_TRANSPORT=httpx`: a new httpx transport for each request, if aiohttp changes inside.

No connection serves two requests. If a server sends an unrequested response in the packet of another, httpx gives
it to the next request, and that may belong to another tenant. This also avoids httpx's pool: its cost grows with the
number of connections. The connect timeout applies to TCP and to TLS separately, and not to a proxy that accepts
CONNECT and stays silent.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx


class OneShotTransport(httpx.AsyncBaseTransport):
    """Opens a connection for each request. Calls `extensions["connected"]` as `net.transport` does."""

    def __init__(self, context: ssl.SSLContext, *, proxy: str | None = None) -> None:
        self._context = context
        secure = proxy is not None and proxy.startswith("https:")
        self._proxy = None if proxy is None else httpx.Proxy(proxy, ssl_context=context if secure else None)
        self._limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the answer when its head has arrived."""
        connected: Callable[[], None] = request.extensions.get("connected", _ignore)

        async def trace(event: str, details: dict[str, Any]) -> None:
            # CONNECT to a proxy is also a request, but it does not reach the endpoint.
            if event == "http11.send_request_headers.started" and details["request"].method != b"CONNECT":
                connected()

        request.extensions = {**request.extensions, "trace": trace}
        transport = httpx.AsyncHTTPTransport(
            verify=self._context, trust_env=False, proxy=self._proxy, limits=self._limits
        )
        try:
            response = await transport.handle_async_request(request)
        except OSError as error:  # httpcore does not map a TLS alert after the handshake
            await transport.aclose()
            raise httpx.ReadError("the connection was lost") from error
        except BaseException:
            await transport.aclose()
            raise
        response.headers.pop("location", None)  # redirects are not followed; httpx would fail on a bad URL
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(transport, response.stream)
        return response


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer; `aclose` also closes its transport."""

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
