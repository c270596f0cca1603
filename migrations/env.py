"""Alembic's environment: the database of the settings, our own version table, and our tables only."""

from typing import Any

from alembic import context
from sqlalchemy import text

from worker import settings
from worker.store import engine as store_engine
from worker.store import leases
from worker.store.engine import UnusableDatabase
from worker.store.tables import VIEW_INDEXES
from worker.store.version import VERSION_TABLE, serves_from
from worker.webhooks.store.tables import metadata

# Of PostgreSQL's advisory locks: the letters "afterwrd".
MIGRATING = int.from_bytes(b"afterwrd")


def _ours(name: str | None, kind: str, parents: Any) -> bool:
    """Say whether autogenerate may look at this: the database may hold other applications' tables."""
    if kind == "index":
        # In the words of the views, which the tables do not know.
        return not (name or "").startswith(VIEW_INDEXES)
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
    if connection.dialect.name == "postgresql":
        _alone(connection)
    if schema:
        quoted = connection.dialect.identifier_preparer.quote(schema)
        # Not IF NOT EXISTS, which asks for the right to create schemas also where there is nothing to create.
        if not connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}).scalar():
            connection.execute(text(f"CREATE SCHEMA {quoted}"))
        _search(connection, quoted)
        connection.dialect.default_schema_name = schema
    elif connection.dialect.name == "postgresql":
        _search(connection, connection.execute(text("SELECT quote_ident(current_schema())")).scalar())
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=_ours,
        compare_type=True,
        transactional_ddl=True,
    )
    before = serves_from(connection, schema=schema)
    with context.begin_transaction():
        context.run_migrations()
        _refuse_unserved(connection, before, serves_from(connection, schema=schema))


def _refuse_unserved(connection: Any, before: str | None, oldest: str | None) -> None:
    """Undo migrations that would stop serving a worker that lives; `before` and `oldest`: see store/version.py."""
    if before is None or oldest is None or oldest <= before:
        return
    if names := leases.unserved(connection, oldest):
        raise UnusableDatabase(
            f"the new schema serves releases from migration {oldest} on, but workers of older ones run: "
            f"{', '.join(names)}; stop them and repeat this"
        )


def _alone(connection: Any) -> None:
    """Wait for whoever migrates this database now: several replicas of a service begin at the same moment.

    Until the end of the transaction. A limit that a role has for its statements is not meant for these.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    patience = connection.execute(text("SHOW lock_timeout")).scalar()
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
    connection.execute(text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": patience})


def _search(connection: Any, quoted: str | None) -> None:
    """Look for tables in our schema; in the caller's temporary tables last, where PostgreSQL looks first if not told.

    The doors' functions keep this path: a table of a producer's own must not be taken for ours (PostgreSQL manual,
    CREATE FUNCTION, "Writing SECURITY DEFINER Functions Safely").
    """
    if quoted is not None:
        # Local to the transaction: no session state survives it.
        connection.execute(text(f"SET LOCAL search_path TO {quoted}, pg_temp"))


run()
