"""Both transports, and certificates of a private authority."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from worker.jobs.net.call import TransportKind


@pytest.fixture(params=["aiohttp", "httpx"])
def kind(request: pytest.FixtureRequest) -> TransportKind:
    """Return each transport in turn."""
    return "httpx" if request.param == "httpx" else "aiohttp"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return a certificate authority that only these tests trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the path of the authority's certificate."""
    path = Path(tmp_path_factory.mktemp("tls")) / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    yield str(path)


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return a server's TLS context for the name `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context
