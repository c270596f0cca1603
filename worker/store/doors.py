"""The SQL door and the dead letters: rows in, rows out."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, LargeBinary, cast, delete, func, insert, select

from worker.core.clean import clean_text
from worker.core.message import LONGEST_ID
from worker.store.clock import now
from worker.store.packed import among
from worker.store.tables import dead_letters, inbox


class Submitted(NamedTuple):
    """A row of the inbox, unread: the id the door gave it, and the job's bytes."""

    id: str
    job: bytes


def take_inbox(connection: Connection, *, limit: int, max_bytes: int) -> list[Submitted]:
    """Take the oldest rows out of the inbox; accept them in the same transaction, or they stay.

    At most `limit` rows, and no more once they hold `max_bytes`.
    """
    # SQLite keeps whatever type a producer gave it, and text that is no UTF-8; as bytes everything can be fetched.
    job = cast(inbox.c.job, LargeBinary) if connection.dialect.name == "sqlite" else inbox.c.job
    size = func.length(job) if connection.dialect.name == "sqlite" else func.octet_length(job)
    oldest = select(inbox.c.seq, size).order_by(inbox.c.seq).limit(limit).with_for_update(skip_locked=True)
    chosen: list[int] = []
    for seq, length in connection.execute(oldest):
        if max_bytes <= 0:
            break
        chosen.append(seq)
        max_bytes -= length
    these = among(connection.dialect.name, inbox.c.seq, "chosen")
    statement = delete(inbox).where(these).returning(inbox.c.seq, inbox.c.id, job.label("job"))
    rows = sorted(connection.execute(statement, {"chosen": chosen}), key=lambda row: row.seq) if chosen else []
    return [Submitted(row.id, row.job.encode() if isinstance(row.job, str) else bytes(row.job)) for row in rows]


class Letter(NamedTuple):
    """An entry that could not be used, with where it was found and why."""

    queue: str
    reason: str
    message: str
    entry: bytes
    job_id: str | None = None


def bury(connection: Connection, letters: Sequence[Letter]) -> None:
    """Keep entries that can become nothing, with their bytes and the reason."""
    rows = [
        letter._asdict()
        | {"message": clean_text(letter.message), "job_id": letter.job_id and clean_text(letter.job_id[:LONGEST_ID])}
        for letter in letters
    ]
    if rows:
        connection.execute(insert(dead_letters).values(created_at=now()), rows)
