"""The SQL door and the dead letters: rows in, rows out."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from worker.core.clean import clean_text
from worker.store.clock import now
from worker.store.tables import dead_letters, inbox


class Submitted(NamedTuple):
    """A row of the inbox, unread: the id the door gave it, and the job's text."""

    id: str
    job: str


def take_inbox(connection: Connection, *, limit: int) -> list[Submitted]:
    """Take the oldest rows out of the inbox; accept them in the same transaction, or they stay."""
    oldest = select(inbox.c.seq).order_by(inbox.c.seq).limit(limit).with_for_update(skip_locked=True)
    statement = delete(inbox).where(inbox.c.seq.in_(oldest)).returning(inbox.c.seq, inbox.c.id, inbox.c.job)
    rows = connection.execute(statement).all()
    return [Submitted(row.id, row.job) for row in sorted(rows, key=lambda row: row.seq)]


class Letter(NamedTuple):
    """An entry that could not be used, with where it was found and why."""

    queue: str
    reason: str
    message: str
    entry: bytes
    job_id: str | None = None


def bury(connection: Connection, letters: Sequence[Letter]) -> None:
    """Keep entries that can become nothing, with their bytes and the reason."""
    rows = [letter._asdict() | {"message": clean_text(letter.message)} for letter in letters]
    if rows:
        connection.execute(insert(dead_letters).values(created_at=now()), rows)
