"""The checks at a worker's start: Redis, the database and the secret keys must be usable."""

import time

import structlog
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.queue.redis_check import trouble_of
from worker.settings import Settings
from worker.store.engine import describe, is_away, reason
from worker.store.fatal_errors import is_hopeless
from worker.store.heartbeat import Lease
from worker.store.rights import open_schema
from worker.store.version import fault
from worker.webhooks.store.secrets import any_sealed

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

log = structlog.get_logger()


class NotReady(RuntimeError):
    """The worker cannot start; the text gives the reason and the remedy."""


def start_lease(lease: Lease, engine: Engine, redis: Redis, settings: Settings) -> None:
    """Check, then start the lease; wait while the database is away. Raises NotReady."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            check_startup(engine, redis, settings)
            lease.start()
            return
        except SQLAlchemyError as error:
            if not is_away(error) or is_hopeless(error):
                raise NotReady(f"AFTERWORD_DATABASE_URL leads nowhere: {reason(error)}") from error
            log.warning("database.away", pause_s=pause_s, **describe(error))
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def check_startup(engine: Engine, redis: Redis, settings: Settings) -> None:
    """Raise NotReady with a sentence about the first fault."""
    if sentence := trouble_of(redis) or fault(engine, schema=settings.database_schema):
        raise NotReady(sentence)
    with engine.begin() as connection:
        if sentence := open_schema(connection, schema=settings.database_schema):
            raise NotReady(sentence)
        if not any_sealed(connection):
            return
        from worker.webhooks.key_rotation import unusable_secrets  # and with it cryptography, see worker.app

        if sentence := unusable_secrets(connection, settings.secret_keys):
            raise NotReady(sentence)
