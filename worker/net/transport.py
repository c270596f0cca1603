"""httpx's transport interface over aiohttp's connector and our parser, used by every call and every webhook.

ops/decisions/0003-transport.md says why httpx's own pool and httpx-aiohttp are not used. Callers rely on two promises:
only errors inside `connect` become ConnectError, ConnectTimeout or ProxyError; and these extensions, if given, are
called in this order after `connect` and before the first byte of the request:

- `peer(socket)` may refuse the connection by raising OSError.
- `secured(seconds)`, only for a new TLS connection, gets the time that TLS took.
- `connected()` is the last call before the endpoint may see the request.
"""

import asyncio
import base64
import functools
import re
import ssl
import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import httpx
import yarl
from aiohappyeyeballs import SocketFactoryType
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.streams import StreamReader

from worker.net.exceptions import READING, connect_error, read_error
from worker.net.protocol import WireProtocol

# Shorter than the keep-alive of common servers (uvicorn and Node: 5 s). A request on a connection that the server is
# closing fails ambiguously; a new connection costs only a handshake.
KEEPALIVE_S: Final = 4.0
_NOT_IN_A_HEADER: Final = re.compile(rb"[\0\r\n]")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A transport without a limit of connections, with one request at a time on each.

    Of httpx's timeouts only `connect` applies, to name, TCP, proxy and TLS together. Callers enforce the other timeouts
    by cancellation. `proxy` is an http(s) URL, with user and password if needed. `socket_factory` gets the numeric
    address of every new connection, and may refuse it by raising OSError. `resolver` finds the addresses for every new
    connection, in the context of the request; its answers are not cached.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        proxy: str | None = None,
        socket_factory: SocketFactoryType | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._context = context
        self._resolver = resolver
        self._socket_factory = socket_factory
        self._proxy, self._proxy_authorization = _split_proxy(proxy)
        self._connector: aiohttp.TCPConnector | None = None
        # An endpoint has one address, and building aiohttp's object for it costs a tenth of a request.
        self._direct = functools.lru_cache(maxsize=256)(_address_of)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, with a body of bytes, and return the answer when its head has arrived."""
        request_bytes = self._head(request) + await request.aread()
        connection = await self._connect(request)
        protocol = connection.protocol
        assert isinstance(protocol, WireProtocol)
        try:
            assert protocol.transport is not None
            request.extensions.get("peer", _ignore)(protocol.transport.get_extra_info("socket"))
            if protocol.fresh and request.url.scheme == "https":
                request.extensions.get("secured", _ignore)(time.monotonic() - protocol.made_s)
            request.extensions.get("connected", _ignore)()
            protocol.ask(request_bytes)
            message, body = await protocol.answer()
        except READING as error:
            _discard(connection)
            raise read_error(error) from error
        except BaseException:
            _discard(connection)
            raise
        # Redirects are not followed, but httpx would parse their URL and fail on a bad one.
        headers = [pair for pair in message.raw_headers if pair[0].lower() != b"location"]
        return httpx.Response(message.code, headers=headers, stream=_Body(connection, body))

    async def aclose(self) -> None:
        """Close every connection; unfinished bodies fail."""
        if self._connector is not None:
            await self._connector.close()

    async def _connect(self, request: httpx.Request) -> Connection:
        connector = self._running_connector()
        address = self._address(request.url)
        limit = aiohttp.ClientTimeout(connect=request.extensions.get("timeout", {}).get("connect"))
        while True:
            try:
                connection = await connector.connect(address, [], limit)
            except (aiohttp.ClientError, OSError) as error:
                raise connect_error(error, proxied=self._proxy is not None) from error
            protocol = connection.protocol
            assert isinstance(protocol, WireProtocol)
            if protocol.fresh and not protocol.should_close:
                return connection
            if not protocol.fresh and protocol.is_silent():
                return connection
            fresh = protocol.fresh
            _discard(connection)
            if fresh:
                raise httpx.RemoteProtocolError("the server sent bytes before the request")

    def _running_connector(self) -> aiohttp.TCPConnector:
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(
                limit=0,  # the number of slots is the limit
                keepalive_timeout=KEEPALIVE_S,
                ssl=self._context,
                resolver=self._resolver,
                use_dns_cache=self._resolver is None,
                socket_factory=self._socket_factory,
            )
            # A private name of aiohttp; therefore aiohttp is pinned to a minor version.
            self._connector._factory = functools.partial(_protocol, asyncio.get_running_loop())
        return self._connector

    def _address(self, url: httpx.URL) -> ClientRequest:
        """Return aiohttp's request object, used by its connector for the target address and the proxy."""
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.UnsupportedProtocol("only http:// and https:// addresses with a host can be called")
        # The host as in the Host header, because yarl's IDNA could make another name.
        host = url.raw_host.decode("ascii")
        if self._proxy is None:
            return self._direct(url.scheme, host, url.port)
        # New for each request: the connector adds to these headers, and they are part of its pool's key.
        headers = {"Proxy-Authorization": self._proxy_authorization} if self._proxy_authorization else None
        return _address_of(url.scheme, host, url.port, proxy=self._proxy, headers=headers)

    def _head(self, request: httpx.Request) -> bytes:
        """Return the request line and headers as bytes. Raises LocalProtocolError for a line break or NUL in one."""
        url = request.url
        target = url.raw_path
        headers = list(request.headers.raw)
        if self._proxy is not None and url.scheme == "http":
            target = b"http://" + url.netloc + target
            if self._proxy_authorization:
                headers.append((b"Proxy-Authorization", self._proxy_authorization.encode()))
        lines = [b"%b %b HTTP/1.1" % (request.method.encode(), target), *(b"%b: %b" % pair for pair in headers)]
        if any(_NOT_IN_A_HEADER.search(line) for line in lines):
            raise httpx.LocalProtocolError("a header holds a line break or NUL")
        return b"\r\n".join(lines) + b"\r\n\r\n"


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer as they arrive; `aclose` releases the connection for reuse, or ends it."""

    def __init__(self, connection: Connection, body: StreamReader) -> None:
        self._connection: Connection | None = connection
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._body
        while True:
            try:
                piece = await body.readany()
            except READING as error:
                # aiohttp raises before it returns the last bytes, and these may complete a paid answer.
                if last := body._read_nowait(-1):
                    yield last
                raise read_error(error) from error
            if not piece:
                return
            yield piece
            piece = b""  # otherwise thousands of silent streams would each keep their last piece

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        protocol = connection.protocol
        if isinstance(protocol, WireProtocol) and protocol.end_exchange(self._body):
            connection.release()
        else:
            _discard(connection)


def _address_of(
    scheme: str, host: str, port: int | None, *, proxy: yarl.URL | None = None, headers: dict[str, str] | None = None
) -> ClientRequest:
    return ClientRequest(
        "POST",
        yarl.URL.build(scheme=scheme, host=host, port=port),
        loop=asyncio.get_running_loop(),
        proxy=proxy,
        proxy_headers=headers if scheme == "https" else None,
    )


def _discard(connection: Connection) -> None:
    """End a connection at once; a normal close would first wait until the peer has read our bytes."""
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()


def _split_proxy(proxy: str | None) -> tuple[yarl.URL | None, str | None]:
    """Return a proxy's URL without user and password, and its Proxy-Authorization header."""
    if proxy is None:
        return None, None
    url = yarl.URL(proxy)
    if url.user is None:
        return url, None
    pair = f"{url.user}:{url.password or ''}".encode()
    return url.with_user(None), "Basic " + base64.b64encode(pair).decode()


def _protocol(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    protocol = WireProtocol(loop)
    protocol.made_s = time.monotonic()
    return protocol


def _ignore(*_: object) -> None:
    pass
