"""Compare the migration of a database with this release, without Alembic.

The number of a release is its newest migration. A worker accepts a schema with the worker's own number or a later
number, if the table `afterword_contract` says that the schema serves the worker's number.
"""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, column, inspect, select, table

VERSION_TABLE = "afterword_alembic_version"
CONTRACT_TABLE = "afterword_contract"


def scripts() -> Path:
    """Return the folder of the migrations: inside the installed package, or beside `worker` in the repository."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


@cache
def known_revisions() -> list[str]:
    """Return the revisions of this release, oldest first: the numbers at the start of the file names."""
    return sorted(path.name.partition("_")[0] for path in (scripts() / "versions").glob("[0-9]*.py"))


def newest() -> str:
    """Return the number of this release."""
    return known_revisions()[-1]


def current(engine: Engine, *, schema: str | None = None) -> str | None:
    """Return the revision of the database; None if it has no table of Alembic's for Afterword."""
    if not inspect(engine).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    with engine.connect() as connection:
        return connection.execute(select(versions.c.version_num)).scalar()


def state(engine: Engine, *, schema: str | None = None) -> tuple[str | None, str]:
    """Return the revision of the database and the newest revision of this release."""
    return current(engine, schema=schema), newest()


def serves_from(connection: Connection, *, schema: str | None = None) -> str | None:
    """Return the number of the oldest release that the database serves; None if the database does not record it."""
    if not inspect(connection).has_table(CONTRACT_TABLE, schema=schema):
        return None
    contract = table(CONTRACT_TABLE, column("serves_from"), schema=schema)
    return connection.execute(select(contract.c.serves_from)).scalar()


def fault(engine: Engine, *, schema: str | None = None) -> str | None:
    """Return a sentence with the reason why this release cannot use the database, and the remedy; None if it can."""
    found = current(engine, schema=schema)
    if found is None:
        return "the database has no tables of Afterword yet; run: afterword db upgrade"
    if found != newest() and found in known_revisions():
        return f"the database is at migration {found}, this release needs {newest()}; run: afterword db upgrade"
    with engine.connect() as connection:
        oldest = serves_from(connection, schema=schema)
    return None if oldest is None else unserved_fault(oldest)


def unserved_fault(oldest: str) -> str | None:
    """Return a sentence if a database that serves releases from `oldest` on does not serve this release, else None."""
    if oldest <= newest():
        return None
    return (
        f"the database serves releases from migration {oldest} on, this release ends at migration {newest()}; "
        "install a newer release of Afterword"
    )
