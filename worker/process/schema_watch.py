"""Checks in the dispatcher's thread that the database still serves this release.

A migration of a later release, or a downgrade, may end that. The worker then takes no more work and ends as after
SIGTERM: running calls may finish.
"""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from worker.pool.pool import TaskPool
from worker.settings import Settings
from worker.store import version

# Ticks of the dispatcher between two checks.
CHECK_TICKS = 10
# As for a start that is refused.
EXIT_CODE = 1

log = structlog.get_logger()


class SchemaWatch:
    """One per process. `pool()` returns Celery's pool, None before it runs."""

    def __init__(self, engine: Engine, settings: Settings, *, pool: Callable[[], TaskPool | None]) -> None:
        self._engine, self._schema, self._pool = engine, settings.database_schema, pool
        self._every_s = CHECK_TICKS * settings.tick_s
        # The start has just checked.
        self._checks_at = time.monotonic() + self._every_s
        self._is_ending = False

    def check_schema(self) -> None:
        """Check the database every CHECK_TICKS ticks; if it does not serve us, log the reason and end the worker."""
        pool = self._pool()
        if self._is_ending or pool is None or time.monotonic() < self._checks_at:
            return
        self._checks_at = time.monotonic() + self._every_s
        if sentence := version.fault(self._engine, schema=self._schema):
            self._is_ending = True
            log.error("worker.not_served", reason=sentence)
            pool.end_worker(EXIT_CODE)
