"""Which migration a database is at, which releases it serves, and which schema this release needs; without Alembic.

The number of a release is the newest migration that it holds. A worker works on any schema that has its own number or
a later one, as long as the table `afterword_contract` says that the schema serves that number.
"""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, column, inspect, select, table

VERSION_TABLE = "afterword_alembic_version"
CONTRACT_TABLE = "afterword_contract"


def scripts() -> Path:
    """Return the folder of the migrations: inside the package when installed, beside it in the repository."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


@cache
def known() -> list[str]:
    """Return the revisions of this release, oldest first: the numbers that the files' names begin with."""
    return sorted(path.name.partition("_")[0] for path in (scripts() / "versions").glob("[0-9]*.py"))


def newest() -> str:
    """Return the number of this release."""
    return known()[-1]


def current(engine: Engine, *, schema: str | None = None) -> str | None:
    """Return the revision the database is at, None when it holds nothing of ours."""
    if not inspect(engine).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    with engine.connect() as connection:
        return connection.execute(select(versions.c.version_num)).scalar()


def state(engine: Engine, *, schema: str | None = None) -> tuple[str | None, str]:
    """Return the revision the database is at and the newest one this release knows."""
    return current(engine, schema=schema), newest()


def serves_from(connection: Connection, *, schema: str | None = None) -> str | None:
    """Return the number of the oldest release that the database serves; None where the database does not say it."""
    if not inspect(connection).has_table(CONTRACT_TABLE, schema=schema):
        return None
    contract = table(CONTRACT_TABLE, column("serves_from"), schema=schema)
    return connection.execute(select(contract.c.serves_from)).scalar()


def fault(engine: Engine, *, schema: str | None = None) -> str | None:
    """Return why this release cannot work on the database and what to do, in a sentence; None when it can."""
    found = current(engine, schema=schema)
    if found is None:
        return "the database has no tables of Afterword yet; run: afterword db upgrade"
    if found != newest() and found in known():
        return f"the database is at migration {found}, this release needs {newest()}; run: afterword db upgrade"
    with engine.connect() as connection:
        oldest = serves_from(connection, schema=schema)
    return None if oldest is None else unserved(oldest)


def unserved(oldest: str) -> str | None:
    """Return why a database that serves releases from `oldest` on does not serve this one; None when it does."""
    if oldest <= newest():
        return None
    return (
        f"the database serves releases from migration {oldest} on, this release ends at migration {newest()}; "
        "install a newer release of Afterword"
    )
