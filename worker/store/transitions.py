"""The guarded UPDATE, the only code that changes a status. core.lifecycle defines the allowed moves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, tuple_, update

from worker.core.failure import MEANINGS, ErrorCode
from worker.core.lifecycle import FAIL, Move, Status
from worker.core.storable_text import clean_json
from worker.store.clock import now
from worker.store.tables import jobs

Key = tuple[str, int]  # the id of a job or delivery, and the attempt number, the fence


class ClaimRequest(NamedTuple):
    """A worker process asks for a job or a delivery."""

    row_id: str
    worker_id: str


class DueRow(NamedTuple):
    """A row that may start now. `attempt` is the number that its claim will give it.

    `age_s`: for how many seconds the row has been due. An instant would not do, because it may be outside of Python's
    dates (the year 1 in a zone west of UTC).
    """

    row_id: str
    attempt: int
    priority: int
    age_s: float


def apply(
    connection: Connection,
    move: Move,
    keys: Sequence[Key],
    *,
    table: Table = jobs,
    worker_id: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> set[Key]:
    """Move the rows of `table` that have a source status of the move; return the keys of the moved rows.

    A move with `held` needs the id of the worker that claimed the attempt; other moves check only status and attempt
    number. Rows that another worker has moved in the meantime are missing from the result.
    """
    if not keys:
        return set()
    if move.held and worker_id is None:
        raise ValueError(f"the move {move.name} belongs to the holder; pass its worker_id")
    guard = (
        _is_held(move, worker_id, table)
        if move.held and worker_id
        else hide_from_planner(table.c.status).in_(sorted(move.sources))
    )
    values: dict[str, Any] = {"status": move.target, "worker_id": None, **(changes or {})}
    if move.final:
        values |= {"finished_at": now(), "waiting_for": None}
    # Sorted, because processes that lock the same rows must lock them in the same order.
    statement = (
        update(table)
        .where(tuple_(table.c.id, table.c.attempt).in_(sorted(keys)), guard)
        .values(values)
        .returning(table.c.id, table.c.attempt)
    )
    return {(row.id, row.attempt) for row in connection.execute(statement)}


def _is_held(move: Move, worker_id: str, table: Table) -> ColumnElement[bool]:
    """Return the guard of a holder's move: this worker holds the row, or lost it and no worker has claimed it since.

    A late answer also completes a replayed job, because it is paid for. A late failure does not end a replayed job:
    the user wants another attempt, and the replay has removed the code `worker_lost`.
    """
    status = hide_from_planner(table.c.status)
    held = and_(status == Status.in_progress, table.c.worker_id == worker_id)
    if Status.queued not in move.sources:
        return held
    late = status == Status.queued
    return or_(held, and_(late, jobs.c.error_code == ErrorCode.worker_lost) if move is FAIL else late)


def hide_from_planner(status: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the status as an expression that matches no partial index, for statements that find rows by id.

    After a burst of queued rows, PostgreSQL learns their number from the next ANALYZE, when a tenth of the table has
    changed. Before that it expects few rows and reads the whole index of queued rows for every claim: 100 ms for a
    million rows.
    """
    return status.concat("")


def error_columns(code: ErrorCode) -> dict[str, Any]:
    """Return the columns error_code, error_message and error for a job that ends, or waits again, with `code`."""
    message = MEANINGS[code].sentence
    return {"error_code": code, "error_message": message, "error": clean_json({"code": code, "message": message})}
