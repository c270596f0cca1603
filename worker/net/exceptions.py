"""Map foreign exceptions: aiohttp's become httpx's, and httpx's become a failure code.

Their texts are not kept, because aiohttp's parser quotes the bytes that it could not read. Causes stay chained for a
debugger.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream

from worker.core.failure import ErrorCode

# The exceptions of a read through aiohttp's protocol.
READING: Final = (aiohttp.ClientError, HttpProcessingError, EofStream, OSError)

# Codes before and after the endpoint may have seen the request. None: not about the wire, so it is our bug.
_CODES: Final[Mapping[type[Exception], tuple[ErrorCode, ErrorCode] | None]] = {
    httpx.ConnectError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.ConnectTimeout: (ErrorCode.connect_timeout, ErrorCode.connection_lost),
    httpx.PoolTimeout: (ErrorCode.connect_timeout, ErrorCode.connection_lost),
    httpx.ProxyError: (ErrorCode.proxy_failed, ErrorCode.connection_lost),
    httpx.UnsupportedProtocol: (ErrorCode.misconfigured, ErrorCode.misconfigured),
    httpx.LocalProtocolError: (ErrorCode.misconfigured, ErrorCode.misconfigured),
    httpx.InvalidURL: (ErrorCode.misconfigured, ErrorCode.misconfigured),
    httpx.ReadError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.WriteError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.CloseError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.NetworkError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.RemoteProtocolError: (ErrorCode.protocol_error, ErrorCode.protocol_error),
    httpx.ProtocolError: (ErrorCode.protocol_error, ErrorCode.protocol_error),
    httpx.ReadTimeout: (ErrorCode.connect_timeout, ErrorCode.first_byte_timeout),
    httpx.WriteTimeout: (ErrorCode.connect_timeout, ErrorCode.first_byte_timeout),
    httpx.TimeoutException: (ErrorCode.connect_timeout, ErrorCode.first_byte_timeout),
    httpx.TransportError: (ErrorCode.connect_failed, ErrorCode.connection_lost),
    httpx.DecodingError: (ErrorCode.invalid_encoding, ErrorCode.invalid_encoding),
    httpx.TooManyRedirects: (ErrorCode.redirected, ErrorCode.redirected),
    httpx.RequestError: None,
    httpx.HTTPStatusError: None,
    httpx.HTTPError: None,
    httpx.CookieConflict: None,
    httpx.StreamError: None,
    httpx.StreamConsumed: None,
    httpx.StreamClosed: None,
    httpx.ResponseNotRead: None,
    httpx.RequestNotRead: None,
}
# Our fault: this process or its machine has no more descriptors, ports, buffers or memory.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
WIRE: Final = tuple(kind for kind, codes in _CODES.items() if codes is not None)


def code_of(error: Exception, *, sent: bool) -> ErrorCode:
    """Return the code of an exception of WIRE, raised before the answer's head. `sent`: connect had returned."""
    codes = _CODES[type(error)]
    assert codes is not None
    code = codes[sent]
    if code is ErrorCode.connect_failed:
        return _connect_code(error)
    # httpx uses one class for a connection that ends before the answer and for a malformed answer.
    return ErrorCode.connection_lost if code is ErrorCode.protocol_error and sent and not _is_malformed(error) else code


def connect_error(error: Exception, *, proxied: bool) -> httpx.TransportError:
    """Return httpx's exception for an error of aiohttp's `connect`, direct or through a proxy."""
    if any(isinstance(cause, TimeoutError) for cause in _chain(error)):
        return httpx.ConnectTimeout("no connection in time")
    if proxied and not isinstance(error, aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorCertificateError):
        return httpx.ProxyError("the proxy made no connection")
    return httpx.ConnectError("no connection")


def refused_by_proxy(error: Exception) -> bool:
    """Return whether a proxy refused the target with status 403."""
    return any(isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status == 403 for cause in _chain(error))


def read_error(error: Exception) -> httpx.TransportError:
    """Return httpx's exception for an error of READING, raised during a read of the answer."""
    if isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | HttpProcessingError | EofStream
    ):
        return httpx.RemoteProtocolError("the answer ended early or is malformed")
    return httpx.ReadError("the connection was lost")


def _connect_code(error: Exception) -> ErrorCode:
    causes = tuple(_chain(error))
    if is_exhaustion(causes):
        return ErrorCode.out_of_resources
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return ErrorCode.dns_failed
    return (
        ErrorCode.tls_failed if any(isinstance(cause, ssl.SSLError) for cause in causes) else ErrorCode.connect_failed
    )


def is_exhaustion(causes: Iterable[BaseException]) -> bool:
    """Return whether a connection failed because this process has no descriptors, ports, buffers or memory left.

    A resolver without a descriptor reports an unknown name. Opening a descriptor here shows if that was the reason.
    """
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
            return True
        if isinstance(cause, MemoryError) or (isinstance(cause, socket.gaierror) and not _has_descriptor()):
            return True
    return False


def _has_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _is_malformed(error: Exception) -> bool:
    return any(
        isinstance(cause, HttpProcessingError) or type(cause).__module__.startswith("h11") for cause in _chain(error)
    )


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    """Yield an exception, its causes and its contexts; contexts too, because httpcore hides causes (`from None`)."""
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield error
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for origin in (*members, error.__cause__, error.__context__):
        yield from _chain(origin, seen)
