import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import Engine

from tests.flow.system import KEY, System
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.redis import RedisServer
from worker.store.engine import open_engine


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(key=KEY) as endpoint:
        yield endpoint


@pytest.fixture
def system(redis_url: str, database_url: str, engine: Engine, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    """Yield all parts except a worker, on each database in turn."""
    made = System(redis_url, database_url, engine, fake, tmp_path)
    yield made
    made.close()


@pytest.fixture
def sqlite_system(redis_url: str, sqlite_url: str, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    """Yield all parts except a worker, on SQLite."""
    engine = open_engine(sqlite_url)
    made = System(redis_url, sqlite_url, engine, fake, tmp_path)
    yield made
    try:
        made.close()
    finally:
        engine.dispose()


@pytest.fixture
def postgres_system(redis_url: str, postgresql_url: str, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    """Yield all parts except a worker, on PostgreSQL, for tests that do not depend on the database."""
    engine = open_engine(postgresql_url)
    made = System(redis_url, postgresql_url, engine, fake, tmp_path)
    yield made
    try:
        made.close()
    finally:
        engine.dispose()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Yield a Redis server that the test may break."""
    made = RedisServer().start()
    yield made
    made.remove()


@pytest.fixture
def on_own_redis(server: RedisServer, postgresql_url: str, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    """Yield all parts except a worker, on PostgreSQL and a Redis server that the test may break."""
    engine = open_engine(postgresql_url)
    made = System(server.url, postgresql_url, engine, fake, tmp_path)
    yield made
    try:
        made.close()
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return a certificate authority that only these tests trust."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the path of the authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return a server's TLS context for 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
