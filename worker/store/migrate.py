"""Migrations from code: the same steps as `alembic upgrade head`, found in the wheel or in the repository."""

import time

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from worker.store.engine import is_busy
from worker.store.version import scripts

# Workers run meanwhile: a statement that changes a table waits for theirs, and theirs for it.
TRIES, PAUSE_S = 10, 0.5


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, *, schema: str | None = None, revision: str = "head") -> None:
    """Bring the database to a revision, in one transaction; done again while others are in the way."""
    for tries_left in reversed(range(TRIES)):
        try:
            _upgrade(engine, schema, revision)
            return
        except DBAPIError as error:
            if not is_busy(error) or not tries_left:
                raise
        time.sleep(PAUSE_S)


def _upgrade(engine: Engine, schema: str | None, revision: str) -> None:
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
