"""Alembic's environment: the database of the settings, our own version table, and our tables only."""

from typing import Any

from alembic import context
from sqlalchemy import text

from worker import settings
from worker.store import engine as store_engine
from worker.store.version import VERSION_TABLE
from worker.store.webhook_tables import metadata


def _ours(name: str | None, kind: str, parents: Any) -> bool:
    """Say whether autogenerate may look at this: the database may hold other applications' tables."""
    return kind != "table" or (name or "").startswith("afterword_")


def run() -> None:
    """Migrate with the connection in `config.attributes`, else with one of our own."""
    given = context.config.attributes
    if (connection := given.get("connection")) is not None:
        migrate(connection, given.get("schema"))
        return
    chosen = settings.load()
    if chosen.database_url is None:
        raise SystemExit("no database: set AFTERWORD_DATABASE_URL to sqlite:////path/file.db or postgresql://…")
    engine = store_engine.open_engine(chosen.database_url)
    with engine.begin() as connection:
        migrate(connection, chosen.database_schema)


def migrate(connection: Any, schema: str | None) -> None:
    if schema:
        quoted = connection.dialect.identifier_preparer.quote(schema)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))
        # Local to the transaction: no session state survives it.
        connection.execute(text(f"SET LOCAL search_path TO {quoted}"))
        connection.dialect.default_schema_name = schema
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=_ours,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
