"""Looks now and then whether the database still serves this release, as a chore of the dispatcher's thread.

A migration of a later release may end that, or a downgrade. The worker then takes no more work and ends as after
SIGTERM: calls that run may finish.
"""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from worker.pool.pool import TaskPool
from worker.settings import Settings
from worker.store import version

# One look in so many ticks of the dispatcher.
LOOK_TICKS = 10
# The same as of a start that is refused.
EXIT_CODE = 1

log = structlog.get_logger()


class SchemaWatch:
    """One a process. `pool()` is Celery's pool, None before it runs."""

    def __init__(self, engine: Engine, settings: Settings, *, pool: Callable[[], TaskPool | None]) -> None:
        self._engine, self._schema, self._pool = engine, settings.database_schema, pool
        self._every_s = LOOK_TICKS * settings.tick_s
        # The start has just looked.
        self._looks_at = time.monotonic() + self._every_s
        self._leaves = False

    def look(self) -> None:
        """Ask the database when it is time to; say once, in one sentence, why the worker ends."""
        pool = self._pool()
        if self._leaves or pool is None or time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + self._every_s
        if sentence := version.fault(self._engine, schema=self._schema):
            self._leaves = True
            log.error("worker.not_served", reason=sentence)
            pool.end_worker(EXIT_CODE)
