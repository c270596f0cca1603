"""Alembic's environment: the database from the settings, our own version table, and only our tables."""

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

# The key of a PostgreSQL advisory lock: the letters "afterwrd".
MIGRATING = int.from_bytes(b"afterwrd")


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    """Return whether autogenerate may compare this: the database may have tables of other applications."""
    if kind == "index":
        # These indexes are defined with the views, not in tables.py.
        return not (name or "").startswith(VIEW_INDEXES)
    return kind != "table" or (name or "").startswith("afterword_")


def run() -> None:
    """Migrate with the connection in `config.attributes`, else with a new connection from the settings."""
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
        _lock_out_others(connection)
    if schema:
        quoted = connection.dialect.identifier_preparer.quote(schema)
        # Not IF NOT EXISTS: it needs the right to create schemas even if the schema exists.
        if not connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}).scalar():
            connection.execute(text(f"CREATE SCHEMA {quoted}"))
        _set_search_path(connection, quoted)
        connection.dialect.default_schema_name = schema
    elif connection.dialect.name == "postgresql":
        _set_search_path(connection, connection.execute(text("SELECT quote_ident(current_schema())")).scalar())
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=_is_ours,
        compare_type=True,
        transactional_ddl=True,
    )
    before = serves_from(connection, schema=schema)
    with context.begin_transaction():
        context.run_migrations()
        _refuse_unserved(connection, before, serves_from(connection, schema=schema))


def _refuse_unserved(connection: Any, before: str | None, oldest: str | None) -> None:
    """Undo the migrations if the schema would not serve a living worker; `before`, `oldest`: store/version.py."""
    if before is None or oldest is None or oldest <= before:
        return
    if names := leases.unserved_workers(connection, oldest):
        raise UnusableDatabase(
            f"the new schema serves releases from migration {oldest} on, but workers of older ones run: "
            f"{', '.join(names)}; stop them and repeat this"
        )


def _lock_out_others(connection: Any) -> None:
    """Wait until no other process migrates this database, because replicas of a service may start together.

    The lock lasts until the end of the transaction. A role's limit for the time of statements is lifted for migrations.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    lock_timeout = connection.execute(text("SHOW lock_timeout")).scalar()
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
    connection.execute(text("SELECT set_config('lock_timeout', :value, true)"), {"value": lock_timeout})


def _set_search_path(connection: Any, quoted: str | None) -> None:
    """Search our schema first and temporary tables last; by default PostgreSQL searches temporary tables first.

    The trigger functions of cancel_v1 and replay_v1 keep this path, because they must not use a producer's own table in
    place of ours (PostgreSQL manual, CREATE FUNCTION, "Writing SECURITY DEFINER Functions Safely").
    """
    if quoted is not None:
        # LOCAL, because session state must not outlive the transaction.
        connection.execute(text(f"SET LOCAL search_path TO {quoted}, pg_temp"))


run()
