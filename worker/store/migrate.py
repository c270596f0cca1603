"""Run migrations from code: the steps of `alembic upgrade head`, with scripts from the wheel or the repository."""

import time

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from worker.store.engine import is_busy
from worker.store.version import scripts

# Workers run during an upgrade: ALTER TABLE and their statements wait for each other's locks.
TRIES, PAUSE_S = 10, 0.5


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, *, schema: str | None = None, revision: str = "head") -> None:
    """Upgrade the database to a revision in one transaction; after a lock conflict, try again up to 10 times."""
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
    """Downgrade the database to a revision in one transaction; `base` removes all tables of Afterword."""
    config = _config()
    with engine.begin() as connection:
        config.attributes.update(connection=connection, schema=schema)
        command.downgrade(config, revision)
