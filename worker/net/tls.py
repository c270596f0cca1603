"""TLS for one endpoint, or for all receivers: whom we trust, and who we are."""

import asyncio.sslproto
import ssl
from typing import Final

import httpx

from worker.core.endpoint import Endpoint

# asyncio gives every TLS connection a read buffer of 256 KiB; a TLS record holds at most 16 KiB. With 2,000 calls in
# flight the difference is half a gigabyte. There is no setting for it but this class attribute.
TLS_BUFFER: Final = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER


class Contexts:
    """The TLS contexts of one process's endpoints. Endpoints with equal TLS settings share one context.

    Building a context parses the system's 150 certificates: 33 ms of CPU and 0.9 MB each time.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str | None, ...], ssl.SSLContext] = {}

    def of(self, endpoint: Endpoint) -> ssl.SSLContext:
        """Return the endpoint's context. The first call for new settings reads files, so call it at start.

        An endpoint that uses no TLS gets a context that trusts no certificate. Raises ValueError as `context` does.
        """
        files = (endpoint.ca_file, endpoint.cert_file, endpoint.cert_key_file)
        uses_tls = any(url.lower().startswith("https:") for url in (endpoint.url, endpoint.proxy or ""))
        key = files if uses_tls else ()
        if key not in self._made:
            self._made[key] = context(endpoint) if uses_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._made[key]


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """Build the TLS context of an endpoint from its files.

    With a `ca_file` only that authority is trusted; without, the system's and those that come with httpx. Raises
    ValueError, naming the file, if one cannot be read.
    """
    made = trusting(endpoint.ca_file, setting=f"ca_file of endpoint {endpoint.name}")
    if endpoint.cert_file is not None:
        try:
            made.load_cert_chain(endpoint.cert_file, endpoint.cert_key_file)
        except OSError as error:
            raise ValueError(_unreadable(f"cert_file of endpoint {endpoint.name}", endpoint.cert_file)) from error
    return made


def trusting(ca_file: str | None, *, setting: str) -> ssl.SSLContext:
    """Build a context that trusts the authority in `ca_file`; without one the system's and those that come with httpx.

    Raises ValueError, naming the file and `setting`, if it cannot be read.
    """
    try:
        if ca_file is not None:
            made = ssl.create_default_context(cafile=ca_file)
        else:
            made = httpx.create_ssl_context(trust_env=False)
            made.load_default_certs()
    except OSError as error:
        raise ValueError(_unreadable(setting, ca_file)) from error
    made.set_alpn_protocols(["http/1.1"])
    return made


def _unreadable(setting: str, path: str | None) -> str:
    return (
        f"{setting} is {path}, which cannot be read as PEM; name a readable PEM file "
        "(and for a client certificate its key)"
    )
