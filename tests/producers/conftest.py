"""Fixtures: a producer on a real Redis and database, without the settings of the developer's environment."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Engine

from afterword import Afterword
from tests.producers.made import KINDS, Open


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AFTERWORD_REDIS_URL", "AFTERWORD_DATABASE_URL", "AFTERWORD_DATABASE_SCHEMA"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.fixture
def queue(redis_url: str) -> Iterator[Afterword]:
    """A producer with a Redis URL only."""
    with Afterword(redis_url) as client:
        yield client


@pytest.fixture
def client(redis_url: str, database_url: str) -> Iterator[Afterword]:
    """A producer with a Redis URL and a database URL."""
    with Afterword(redis_url, database_url) as client:
        yield client


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Callable[[Engine, str], AbstractContextManager[Open]]:
    """Each kind of connection that a caller may pass to enqueue."""
    return KINDS[request.param]
