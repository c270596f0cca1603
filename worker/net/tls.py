"""TLS for one endpoint: whom we trust, and who we are. Used by `net.client`."""

import asyncio.sslproto
import ssl
from typing import Final

import httpx

from worker.core.endpoint import Endpoint

# asyncio gives every TLS connection a read buffer of 256 KiB; a TLS record holds at most 16 KiB. With 2,000 calls in
# flight the difference is half a gigabyte. There is no setting for it but this class attribute.
TLS_BUFFER: Final = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """Build the endpoint's TLS context; reads its files, so call it at start.

    With a `ca_file` only that authority is trusted; without, the system's and those that come with httpx. Raises
    ValueError, naming the file, if one cannot be read.
    """
    try:
        if endpoint.ca_file is not None:
            made = ssl.create_default_context(cafile=endpoint.ca_file)
        else:
            made = httpx.create_ssl_context(trust_env=False)
            made.load_default_certs()
    except OSError as error:
        raise ValueError(_unreadable(endpoint, "ca_file", endpoint.ca_file)) from error
    if endpoint.cert_file is not None:
        try:
            made.load_cert_chain(endpoint.cert_file, endpoint.cert_key_file)
        except OSError as error:
            raise ValueError(_unreadable(endpoint, "cert_file", endpoint.cert_file)) from error
    made.set_alpn_protocols(["http/1.1"])
    return made


def _unreadable(endpoint: Endpoint, setting: str, path: str | None) -> str:
    return (
        f"{setting} of endpoint {endpoint.name} is {path}, which cannot be read as PEM; name a readable PEM file "
        "(and for a client certificate its key)"
    )
