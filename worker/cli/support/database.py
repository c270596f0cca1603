"""The database of a command: open it, check its migration, turn its errors into sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.cli.support.settings import need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.jobs.store.listing import Listing
    from worker.settings import Settings


def database(settings: "Settings") -> "Listing":
    """Return the database of any migration, for use in `with`; BadSettings without AFTERWORD_DATABASE_URL."""
    from worker.jobs.store.listing import Listing

    need(settings, "database_url")
    assert settings.database_url is not None
    return Listing(settings.database_url, schema=settings.database_schema)


@contextmanager
def migrated(settings: "Settings") -> "Iterator[Listing]":
    """Give the database; CannotRead if this release cannot work on its migration."""
    with database(settings) as listing:
        _need(listing.fault())
        yield listing


@contextmanager
def writer(settings: "Settings") -> "Iterator[Engine]":
    """Give an engine for short transactions on a migrated database; its errors become CannotRead."""
    with _engine(settings, reading=False) as engine:
        yield engine


@contextmanager
def reader(settings: "Settings") -> "Iterator[Engine]":
    """Give an engine that only reads and never waits for a writer; its errors become CannotRead."""
    with _engine(settings, reading=True) as engine:
        yield engine


@contextmanager
def _engine(settings: "Settings", *, reading: bool) -> "Iterator[Engine]":
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
