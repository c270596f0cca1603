"""The database for commands that look at it or migrate it, and for those that write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.settings import Settings, need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.store.listing import Listing


def database(settings: Settings) -> "Listing":
    """Return the database of the settings as it is, to be used in `with`; BadSettings when there is none."""
    from worker.store.listing import Listing

    need(settings, "database_url")
    assert settings.database_url is not None
    return Listing(settings.database_url, schema=settings.database_schema)


@contextmanager
def migrated(settings: Settings) -> "Iterator[Listing]":
    """Give the database of the settings; CannotRead when it lacks tables or views of this release."""
    with database(settings) as listing:
        _need_newest(*listing.state())
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
    from worker.store import version
    from worker.store.engine import open_engine
    from worker.store.listing import sentences

    need(settings, "database_url")
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, schema=settings.database_schema, reading=reading)
    try:
        with sentences():
            _need_newest(*version.state(engine, schema=settings.database_schema))
            yield engine
    finally:
        engine.dispose()


def _need_newest(current: str | None, newest: str) -> None:
    """Raise CannotRead for a database that is older than this release; a newer one only has more."""
    from worker.store import version
    from worker.store.listing import CannotRead

    if current is None:
        raise CannotRead("the database has no tables of Afterword yet; run: afterword db upgrade")
    if current != newest and current in version.known():
        raise CannotRead(
            f"the database is at migration {current}, this release needs {newest}; run: afterword db upgrade"
        )
