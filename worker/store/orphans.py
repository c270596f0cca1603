"""Release orphans: rows that the database assigns to this worker, but no task of this process works on.

A row becomes an orphan when its claim was committed but the answer to COMMIT was lost with the connection.
"""

from collections.abc import Callable, Container

import structlog
from sqlalchemy import Connection, Engine

from worker.store.transitions import Key

log = structlog.get_logger()


class Orphans:
    """Finds and queues the orphans of one kind of row, `job` or `delivery`.

    `held` returns the ids and attempt numbers of the rows that a worker id holds; `give_back` queues rows again.
    """

    def __init__(
        self,
        engine: Engine,
        kind: str,
        *,
        held: Callable[[Connection, str], dict[str, int]],
        give_back: Callable[[Connection, str, list[Key]], object],
    ) -> None:
        self._engine, self._kind, self._held, self._give_back = engine, kind, held, give_back
        self._suspects: dict[str, int] = {}

    def release(self, worker_id: str, known: Container[str]) -> None:
        """Queue again each row that two calls in a row found held but not `known`; `known` has the ids worked on."""
        with self._engine.begin() as connection:
            held = self._held(connection, worker_id)
            idle = {row_id: number for row_id, number in held.items() if row_id not in known}
            orphans = [(row_id, number) for row_id, number in idle.items() if self._suspects.get(row_id) == number]
            if orphans:
                self._give_back(connection, worker_id, orphans)
        self._suspects = idle
        if orphans:
            log.warning(f"{self._kind}.forgotten", rows=len(orphans))
