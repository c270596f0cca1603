"""TLS contexts for an endpoint or for all receivers: trusted authorities and client certificate."""

import asyncio.sslproto
import ssl
from typing import Final

import httpx

from worker.core.endpoint import Endpoint

# asyncio gives every TLS connection a read buffer of 256 KiB, but a TLS record has at most 16 KiB. With 2,000 calls in
# flight the difference is half a gigabyte. This class attribute is the only way to set the size.
TLS_BUFFER: Final = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER


class Contexts:
    """The TLS contexts of the endpoints of a process. Endpoints with equal TLS settings share a context.

    Building a context parses the system's 150 certificates: 33 ms of CPU and 0.9 MB each time.
    """

    def __init__(self) -> None:
        self._contexts: dict[tuple[str | None, ...], ssl.SSLContext] = {}

    def of(self, endpoint: Endpoint) -> ssl.SSLContext:
        """Return the endpoint's context. The first call for new TLS settings reads files, so call this at start.

        An endpoint without TLS gets a context that trusts no certificate. Raises ValueError as `context` does.
        """
        files = (endpoint.ca_file, endpoint.cert_file, endpoint.cert_key_file)
        uses_tls = any(url.lower().startswith("https:") for url in (endpoint.url, endpoint.proxy or ""))
        key = files if uses_tls else ()
        if key not in self._contexts:
            self._contexts[key] = context(endpoint) if uses_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._contexts[key]


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """Build the TLS context of an endpoint from its files.

    With a `ca_file`, only its authorities are trusted; without, those of the system and of httpx. Raises ValueError
    with the file's name if a file cannot be read.
    """
    tls = trusting_context(endpoint.ca_file, setting=f"ca_file of endpoint {endpoint.name}")
    if endpoint.cert_file is not None:
        try:
            tls.load_cert_chain(endpoint.cert_file, endpoint.cert_key_file)
        except OSError as error:
            raise ValueError(_unreadable(f"cert_file of endpoint {endpoint.name}", endpoint.cert_file)) from error
    return tls


def trusting_context(ca_file: str | None, *, setting: str) -> ssl.SSLContext:
    """Build a context that trusts the authorities in `ca_file`; without it, those of the system and of httpx.

    Raises ValueError with the file's name and `setting` if the file cannot be read.
    """
    try:
        if ca_file is not None:
            tls = ssl.create_default_context(cafile=ca_file)
        else:
            tls = httpx.create_ssl_context(trust_env=False)
            tls.load_default_certs()
    except OSError as error:
        raise ValueError(_unreadable(setting, ca_file)) from error
    tls.set_alpn_protocols(["http/1.1"])
    return tls


def _unreadable(setting: str, path: str | None) -> str:
    return (
        f"{setting} is {path}, but it cannot be read as PEM; name a readable PEM file "
        "(and for a client certificate its key)"
    )
