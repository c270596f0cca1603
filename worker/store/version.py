"""Which migration a database is at, and which this release needs; without Alembic, which a running worker does not."""

from pathlib import Path

from sqlalchemy import Engine, column, inspect, select, table

VERSION_TABLE = "afterword_alembic_version"


def scripts() -> Path:
    """Return the folder of the migrations: inside the package when installed, beside it in the repository."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


def known() -> list[str]:
    """Return the revisions of this release, oldest first: the numbers that the files' names begin with."""
    return sorted(path.name.partition("_")[0] for path in (scripts() / "versions").glob("[0-9]*.py"))


def current(engine: Engine, *, schema: str | None = None) -> str | None:
    """Return the revision the database is at, None when it holds nothing of ours."""
    if not inspect(engine).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    with engine.connect() as connection:
        return connection.execute(select(versions.c.version_num)).scalar()


def state(engine: Engine, *, schema: str | None = None) -> tuple[str | None, str]:
    """Return the revision the database is at and the newest one this release knows."""
    return current(engine, schema=schema), known()[-1]
