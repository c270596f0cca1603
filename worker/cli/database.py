"""The database for commands that look at it or migrate it, and for those that write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.settings import Settings, need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.jobs.store.listing import Listing


def database(settings: Settings) -> "Listing":
    """Return the database of the settings as it is, to be used in `with`; BadSettings when there is none."""
    from worker.jobs.store.listing import Listing

    need(settings, "database_url")
    assert settings.database_url is not None
    return Listing(settings.database_url, schema=settings.database_schema)


@contextmanager
def migrated(settings: Settings) -> "Iterator[Listing]":
    """Give the database of the settings; CannotRead when this release cannot work on it."""
    with database(settings) as listing:
        _need(listing.fault())
        yield listing


@contextmanager
def writer(settings: Settings) -> "Iterator[Engine]":
    """Give an engine for short transactions on a migrated database; every error of it is a CannotRead."""
    with _engine(settings, reading=False) as engine:
        yield engine


@contextmanager
def reader(settings: Settings) -> "Iterator[Engine]":
    """Give an engine that only reads, also beside writers; the rest as `writer`."""
    with _engine(settings, reading=True) as engine:
        yield engine


@contextmanager
def _engine(settings: Settings, *, reading: bool) -> "Iterator[Engine]":
    from worker.jobs.store.listing import sentences
    from worker.store import version
    from worker.store.engine import open_engine

    need(settings, "database_url")
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, schema=settings.database_schema, reading=reading)
    try:
        with sentences():
            _need(version.fault(engine, schema=settings.database_schema))
            yield engine
    finally:
        engine.dispose()


def _need(fault: str | None) -> None:
    from worker.jobs.store.listing import CannotRead

    if fault is not None:
        raise CannotRead(fault)
