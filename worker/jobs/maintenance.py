"""A chore of the dispatcher: what cancellations by SQL have left to be done is done within a tick."""

import structlog
from sqlalchemy import Engine

from worker.jobs.store import orders

# Marks of messages that never came may be many, and are looked at again in each round.
BATCHES_A_TICK = 20

log = structlog.get_logger()


class Marks:
    """Walks the marks, some at each tick. `keep_s`: how long a mark waits for a message of its id."""

    def __init__(self, engine: Engine, *, keep_s: float) -> None:
        self._engine, self._keep_s = engine, keep_s
        self._after = orders.FIRST

    def settle(self) -> None:
        """Number and tell the ends that the door made, and let go of the marks that have served."""
        for _ in range(BATCHES_A_TICK):
            with self._engine.begin() as connection:
                served = orders.serve(connection, after=self._after, keep_s=self._keep_s)
            self._after = served.after
            if served.cancelled or served.forgotten:
                log.info("job.cancelled", jobs=len(served.cancelled), forgotten=served.forgotten)
            if served.after == orders.FIRST:
                return
