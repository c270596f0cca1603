"""The INSERT that can say ON CONFLICT: both databases have it, SQLAlchemy has one for each."""

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT into `table` for the dialect's name, `postgresql` or `sqlite`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
