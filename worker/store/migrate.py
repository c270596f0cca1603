"""Migrations from code: the same steps as `alembic upgrade head`, found in the wheel or in the repository."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

VERSION_TABLE = "afterword_alembic_version"


def scripts() -> Path:
    """Return the folder of the migrations: inside the package when installed, beside it in the repository."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, *, schema: str | None = None, revision: str = "head") -> None:
    """Bring the database to a revision, in one transaction."""
    config = _config()
    with engine.begin() as connection:
        config.attributes.update(connection=connection, schema=schema)
        command.upgrade(config, revision)


def downgrade(engine: Engine, *, schema: str | None = None, revision: str = "base") -> None:
    """Take the database back to a revision, in one transaction; `base` removes all that is ours."""
    config = _config()
    with engine.begin() as connection:
        config.attributes.update(connection=connection, schema=schema)
        command.downgrade(config, revision)


def state(engine: Engine, *, schema: str | None = None) -> tuple[str | None, str | None]:
    """Return the revision the database is at and the newest one this release knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
        current = MigrationContext.configure(connection, opts=options).get_current_revision()
    return current, newest


def knows(revision: str) -> bool:
    """Say whether this release has the migration; an unknown one is a newer release's, whose schema we can use."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
