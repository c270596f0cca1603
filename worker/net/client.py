"""Opens the HTTP client of an endpoint. `run` keeps one an endpoint and gives it to `net.endpoint.call`."""

from http.cookiejar import CookieJar
from typing import Any, Literal

import httpx

from worker.core.endpoint import Endpoint
from worker.net.fallback import OneShotTransport
from worker.net.tls import context
from worker.net.transport import AiohttpTransport

TransportKind = Literal["aiohttp", "httpx"]


class _NoCookies(CookieJar):
    """Keeps nothing: a cookie of one tenant's answer must not travel with another's request."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of `response`."""


def open_client(endpoint: Endpoint, *, kind: TransportKind = "aiohttp") -> httpx.AsyncClient:
    """Open a client for one endpoint; close it with `aclose`. Nothing is read from the environment.

    It holds no limit: slots bound the calls in flight. Raises ValueError if a TLS file of the endpoint cannot be read.
    """
    trusted = context(endpoint)
    transport = (
        OneShotTransport(trusted, proxy=endpoint.proxy)
        if kind == "httpx"
        else AiohttpTransport(trusted, proxy=endpoint.proxy)
    )
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False, cookies=_NoCookies())  # noqa: S113
