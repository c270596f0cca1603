"""The database for commands that look at it or migrate it."""

from typing import TYPE_CHECKING

from worker.settings import Settings, need

if TYPE_CHECKING:
    from worker.store.listing import Listing


def database(settings: Settings) -> "Listing":
    """Return the database of the settings, to be used in `with`; BadSettings when there is none."""
    from worker.store.listing import Listing

    need(settings, "database_url")
    assert settings.database_url is not None
    return Listing(settings.database_url, schema=settings.database_schema)
