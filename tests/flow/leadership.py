"""The leader of the running workers and its process."""

from tests.flow.system import System
from tests.pool.workers import Child, until


def leader(system: System) -> str:
    (row,) = until(
        lambda: system.rows("SELECT worker_id FROM afterword_leaders WHERE worker_id IS NOT NULL"), what="a leader"
    )
    return str(row.worker_id)


def process_of(system: System, worker_id: str) -> Child:
    (row,) = system.rows("SELECT name FROM afterword_workers WHERE id = :id", id=worker_id)
    return next(child for child in system.workers if f"{child.process.pid}" in row.name)
