"""Rows that are this worker's by the database and that nobody here works on: forgotten, and given back.

A commit whose answer was lost with the connection leaves one behind.
"""

from collections.abc import Callable, Container

import structlog
from sqlalchemy import Connection, Engine

from worker.store.transitions import Key

log = structlog.get_logger()


class Orphans:
    """Looks for rows of one kind: `held` lists a worker's rows and their attempts, `give_back` queues some again."""

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
        """Give back what two looks in a row found without anybody who works on it; `known` are those worked on."""
        with self._engine.begin() as connection:
            held = self._held(connection, worker_id)
            idle = {row_id: number for row_id, number in held.items() if row_id not in known}
            strays = [(row_id, number) for row_id, number in idle.items() if self._suspects.get(row_id) == number]
            if strays:
                self._give_back(connection, worker_id, strays)
        self._suspects = idle
        if strays:
            log.warning(f"{self._kind}.forgotten", rows=len(strays))
