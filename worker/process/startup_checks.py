"""The checks at a worker's start: Redis, the database and the secret keys must be usable."""

from redis import Redis
from sqlalchemy import Engine

from worker.queue.redis_check import trouble_of
from worker.settings import Settings
from worker.store.rights import open_schema
from worker.store.version import fault
from worker.webhooks.store.secrets import any_sealed


class NotReady(RuntimeError):
    """The worker cannot start; the text gives the reason and the remedy."""


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
