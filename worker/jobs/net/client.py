"""Opens the HTTP clients of endpoints. `host` keeps one for each, and `run` gives it to `jobs.net.call.call`."""

from collections.abc import Iterable
from http.cookiejar import CookieJar
from typing import Any, Literal

import httpx

from worker.core.endpoint import Endpoint
from worker.net.httpx_transport import OneShotTransport
from worker.net.tls import Contexts
from worker.net.transport import AiohttpTransport

TransportKind = Literal["aiohttp", "httpx"]


class _NoCookies(CookieJar):
    """Keeps nothing: a cookie of one tenant's answer must not travel with another's request."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of `response`."""


def open_clients(endpoints: Iterable[Endpoint], *, kind: TransportKind) -> dict[str, httpx.AsyncClient]:
    """Open the client of each endpoint, by the endpoint's name; equal TLS settings share one context.

    Raises ValueError if a TLS file of an endpoint cannot be read.
    """
    contexts = Contexts()
    return {endpoint.name: open_client(endpoint, kind=kind, contexts=contexts) for endpoint in endpoints}


def open_client(
    endpoint: Endpoint, *, kind: TransportKind = "aiohttp", contexts: Contexts | None = None
) -> httpx.AsyncClient:
    """Open a client for one endpoint; close it with `aclose`. Nothing is read from the environment.

    It holds no limit: slots bound the calls in flight. `contexts` shares TLS contexts between endpoints. Raises
    ValueError if a TLS file of the endpoint cannot be read.
    """
    trusted = (contexts or Contexts()).of(endpoint)
    transport = (
        OneShotTransport(trusted, proxy=endpoint.proxy)
        if kind == "httpx"
        else AiohttpTransport(trusted, proxy=endpoint.proxy)
    )
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False, cookies=_NoCookies())  # noqa: S113
