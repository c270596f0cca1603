"""DEAD LETTERS for whoever looks after them: what is there, what one holds, back into the inbox, gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select

from worker.store.tables import dead_letters, inbox

BATCH = 1000


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter without its bytes: `size` says how many there are."""

    seq: int
    queue: str
    reason: str
    message: str
    job_id: str | None
    created_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant: all that hold of what is not None."""

    queue: str | None = None
    reason: str | None = None
    before: datetime | None = None


def newest(connection: Connection, chosen: LetterFilter, *, limit: int) -> list[StoredLetter]:
    """Return the newest letters."""
    found = _columns().where(*_meant(chosen)).order_by(dead_letters.c.seq.desc()).limit(limit)
    return [StoredLetter(*row) for row in connection.execute(found)]


def read(connection: Connection, seq: int) -> tuple[StoredLetter, bytes] | None:
    """Return a letter and its bytes."""
    row = connection.execute(_columns().add_columns(dead_letters.c.entry).where(dead_letters.c.seq == seq)).first()
    return None if row is None else (StoredLetter(*row[:-1]), bytes(row.entry))


def count(connection: Connection, chosen: LetterFilter) -> int:
    """Return how many letters are meant."""
    return int(connection.execute(select(func.count()).select_from(dead_letters).where(*_meant(chosen))).scalar_one())


def after(connection: Connection, chosen: LetterFilter, seq: int) -> list[int]:
    """Return the numbers of the next letters that are meant, oldest first, BATCH at most."""
    found = select(dead_letters.c.seq).where(*_meant(chosen), dead_letters.c.seq > seq)
    return list(connection.scalars(found.order_by(dead_letters.c.seq).limit(BATCH)))


def purge(connection: Connection, chosen: LetterFilter) -> int:
    """Delete the oldest letters that are meant, BATCH at most; return how many."""
    return forget(connection, after(connection, chosen, -1))


def forget(connection: Connection, seqs: Sequence[int]) -> int:
    """Delete letters; return how many there were."""
    return connection.execute(delete(dead_letters).where(dead_letters.c.seq.in_(seqs))).rowcount if seqs else 0


def resubmit(connection: Connection, seq: int, *, job: str, job_id: str | None) -> bool:
    """Move a letter into the inbox as the text `job`, under the id its row had; False if somebody was quicker."""
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


def _meant(chosen: LetterFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if chosen.queue is not None:
        conditions.append(dead_letters.c.queue == chosen.queue)
    if chosen.reason is not None:
        conditions.append(dead_letters.c.reason == chosen.reason)
    if chosen.before is not None:
        conditions.append(dead_letters.c.created_at < chosen.before)
    return conditions
