"""DEAD LETTERS for the operator: list, read, count, delete, and move back into the inbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select

from worker.store.tables import dead_letters, inbox

BATCH = 1000


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter without its bytes. `size`: their number."""

    seq: int
    queue: str
    reason: str
    message: str
    job_id: str | None
    created_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """A filter for dead letters. Every field that is not None must match; `before` is compared with `created_at`."""

    queue: str | None = None
    reason: str | None = None
    before: datetime | None = None


def newest(connection: Connection, chosen: DeadLetterFilter, *, limit: int) -> list[StoredDeadLetter]:
    """Return the newest dead letters."""
    statement = _columns().where(*_conditions(chosen)).order_by(dead_letters.c.seq.desc()).limit(limit)
    return [StoredDeadLetter(*row) for row in connection.execute(statement)]


def read(connection: Connection, seq: int) -> tuple[StoredDeadLetter, bytes] | None:
    """Return a dead letter and its bytes; None if it does not exist."""
    row = connection.execute(_columns().add_columns(dead_letters.c.entry).where(dead_letters.c.seq == seq)).first()
    return None if row is None else (StoredDeadLetter(*row[:-1]), bytes(row.entry))


def count(connection: Connection, chosen: DeadLetterFilter) -> int:
    """Return the number of matching dead letters."""
    statement = select(func.count()).select_from(dead_letters).where(*_conditions(chosen))
    return int(connection.execute(statement).scalar_one())


def after(connection: Connection, chosen: DeadLetterFilter, seq: int) -> list[int]:
    """Return the `seq` of up to BATCH matching dead letters behind `seq`, oldest first."""
    statement = select(dead_letters.c.seq).where(*_conditions(chosen), dead_letters.c.seq > seq)
    return list(connection.scalars(statement.order_by(dead_letters.c.seq).limit(BATCH)))


def purge(connection: Connection, chosen: DeadLetterFilter) -> int:
    """Delete up to BATCH of the oldest matching dead letters; return their number."""
    return forget(connection, after(connection, chosen, -1))


def forget(connection: Connection, seqs: Sequence[int]) -> int:
    """Delete these dead letters; return the number deleted."""
    return connection.execute(delete(dead_letters).where(dead_letters.c.seq.in_(seqs))).rowcount if seqs else 0


def resubmit(connection: Connection, seq: int, *, job: str, job_id: str | None) -> bool:
    """Move a dead letter into the inbox with the text `job` and its old id; False if it is gone already."""
    if not forget(connection, [seq]):
        return False
    connection.execute(insert(inbox).values(job=job, **({} if job_id is None else {"id": job_id})))
    return True


def _columns() -> Select[Any]:
    column = dead_letters.c
    return select(
        column.seq, column.queue, column.reason, column.message, column.job_id, column.created_at,
        func.length(column.entry).label("size"),
    )  # fmt: skip


def _conditions(chosen: DeadLetterFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if chosen.queue is not None:
        conditions.append(dead_letters.c.queue == chosen.queue)
    if chosen.reason is not None:
        conditions.append(dead_letters.c.reason == chosen.reason)
    if chosen.before is not None:
        conditions.append(dead_letters.c.created_at < chosen.before)
    return conditions
