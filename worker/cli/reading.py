"""The database for commands that look at it or migrate it, and for those that write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.settings import Settings, need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.store.listing import Listing


def database(settings: Settings) -> "Listing":
    """Return the database of the settings, to be used in `with`; BadSettings when there is none."""
    from worker.store.listing import Listing

    need(settings, "database_url")
    assert settings.database_url is not None
    return Listing(settings.database_url, schema=settings.database_schema)


@contextmanager
def writer(settings: Settings) -> "Iterator[Engine]":
    """Give an engine for short transactions on a migrated database; every error of it is a CannotRead."""
    from worker.store import version
    from worker.store.engine import open_engine
    from worker.store.listing import CannotRead, sentences

    need(settings, "database_url")
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, schema=settings.database_schema)
    try:
        with sentences():
            current, newest = version.state(engine, schema=settings.database_schema)
            if current is None or (current != newest and current in version.known()):
                raise CannotRead(f"the database is at migration {current or 'none'}; run: afterword db upgrade")
            yield engine
    finally:
        engine.dispose()
