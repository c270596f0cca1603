"""Migrations from code: the same steps as `alembic upgrade head`, found in the wheel or in the repository."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from worker.store.version import scripts


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
