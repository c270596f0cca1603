"""The database for commands that look at it or migrate it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.settings import Settings, need

if TYPE_CHECKING:
    from sqlalchemy import Engine


@contextmanager
def database(settings: Settings) -> "Iterator[Engine]":
    """Open the database of the settings and close it at the end; BadSettings when there is none."""
    from worker.store.engine import open_engine

    need(settings, "database_url")
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, schema=settings.database_schema)
    try:
        yield engine
    finally:
        engine.dispose()
