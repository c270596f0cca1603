"""The guarded UPDATE: the one place where a status changes, built from the table in core.lifecycle."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, tuple_, update

from worker.core.failure import MEANINGS, ErrorCode
from worker.core.lifecycle import FAIL, Move, Status
from worker.core.storable_text import clean_json
from worker.store.clock import now
from worker.store.tables import jobs

Key = tuple[str, int]  # an id, a job's or a delivery's, and the attempt number that is the fence


def hide_from_planner(status: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a status that no partial index is chosen for: the rows are known by their ids.

    Of a burst of rows that wait PostgreSQL learns with the next ANALYZE, after a tenth of the table has changed. Until
    then it takes them for few, and reads the index of all that wait for every claim: 100 ms for a million.
    """
    return status.concat("")


def held_by(move: Move, worker_id: str, table: Table = jobs) -> ColumnElement[bool]:
    """The guard of a move its holder makes: still held by this worker, or taken back but not claimed since.

    A late answer completes a replayed job too: it is paid for. A late failure does not end it: somebody wants it tried
    again, and a replay says nothing of a lost worker any more.
    """
    status = hide_from_planner(table.c.status)
    held = and_(status == Status.in_progress, table.c.worker_id == worker_id)
    if Status.queued not in move.sources:
        return held
    late = status == Status.queued
    return or_(held, and_(late, jobs.c.error_code == ErrorCode.worker_lost) if move is FAIL else late)


def apply(
    connection: Connection,
    move: Move,
    keys: Sequence[Key],
    *,
    table: Table = jobs,
    worker_id: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> set[Key]:
    """Move the rows of `table` that still stand where the move begins; return the keys of those that moved.

    A move that `held` marks needs the worker that claimed the attempt; the others only the status and the attempt
    number. Rows that another worker moved in between are simply absent from the result.
    """
    if not keys:
        return set()
    if move.held and worker_id is None:
        raise ValueError(f"the move {move.name} belongs to the holder; pass its worker_id")
    stands = hide_from_planner(table.c.status).in_(sorted(move.sources))
    guard = held_by(move, worker_id, table) if move.held and worker_id else stands
    values: dict[str, Any] = {"status": move.target, "worker_id": None, **(changes or {})}
    if move.final:
        values |= {"finished_at": now(), "waiting_for": None}
    # In the order of the ids: two processes that lock the same rows lock them in the same order.
    statement = (
        update(table)
        .where(tuple_(table.c.id, table.c.attempt).in_(sorted(keys)), guard)
        .values(values)
        .returning(table.c.id, table.c.attempt)
    )
    return {(row.id, row.attempt) for row in connection.execute(statement)}


class ClaimRequest(NamedTuple):
    """A worker process that wants a job."""

    row_id: str
    worker_id: str


class Due(NamedTuple):
    """A row that may start now. `attempt` is the number its claim will give it, `age_s` for how long it has been due.

    An age, not the instant: an instant may lie where Python has no dates (the year 1 in a zone west of UTC).
    """

    row_id: str
    attempt: int
    priority: int
    age_s: float


def error_columns(code: ErrorCode) -> dict[str, Any]:
    """Return the three error columns of a job that ends, or waits again, because of `code`."""
    message = MEANINGS[code].sentence
    return {"error_code": code, "error_message": message, "error": clean_json({"code": code, "message": message})}
