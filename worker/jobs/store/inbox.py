"""The SQL door and the dead letters: rows in, rows out."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, LargeBinary, Text, cast, delete, func, insert, select, type_coerce

from worker.core.dead_letter import LONGEST_ID
from worker.core.storable_text import clean_text
from worker.jobs.core.entry_size import HEAD_BYTES
from worker.store.bulk_params import any_of
from worker.store.clock import now
from worker.store.tables import dead_letters, inbox


class Submitted(NamedTuple):
    """A row of the inbox, unread: the id the door gave it, and the job's bytes, or the first of them if the job is too
    large; `size` is the job's own."""

    id: str
    job: bytes
    size: int


def take_inbox(connection: Connection, *, limit: int, max_bytes: int, longest: int = 2**30) -> list[Submitted]:
    """Take the oldest rows out of the inbox; accept them in the same transaction, or they stay.

    At most `limit` rows, and no more once they hold `max_bytes`. Of a job with more than `longest` bytes only the head
    is read: both databases know a size without reading what it is the size of.
    """
    sizes: dict[int, int] = {}
    for seq, size in _oldest(connection, limit):
        if max_bytes <= 0:
            break
        sizes[seq] = size
        max_bytes -= size if size <= longest else HEAD_BYTES
    heads = {seq: _head(connection, seq) for seq, size in sizes.items() if size > longest}
    rows = [(row.seq, row.id, row.job) for row in _taken(connection, sizes.keys() - heads.keys(), _job(connection))]
    rows += [(row.seq, row.id, heads[row.seq]) for row in _taken(connection, heads.keys())]
    return [Submitted(id, _bytes(job), sizes[seq]) for seq, id, job in sorted(rows)]


def _oldest(connection: Connection, limit: int) -> Iterator[tuple[int, int]]:
    """Yield numbers of rows, each with the size of its job."""
    oldest = select(inbox.c.seq).order_by(inbox.c.seq).limit(limit).with_for_update(skip_locked=True)
    if connection.dialect.name != "sqlite":
        # The size before compression stands in the row, beside the pointer to the job's pieces (TOAST).
        for seq, size in connection.execute(oldest.add_columns(func.octet_length(inbox.c.job))):
            yield seq, size
        return
    for seq in connection.scalars(oldest):
        with _blob(connection, seq) as blob:
            yield seq, len(blob)


def _taken(connection: Connection, seqs: Iterable[int], *columns: ColumnElement[Any]) -> Sequence[Any]:
    these = any_of(connection.dialect.name, inbox.c.seq, "chosen")
    statement = delete(inbox).where(these).returning(inbox.c.seq, inbox.c.id, *columns)
    chosen = sorted(seqs)
    return connection.execute(statement, {"chosen": chosen}).all() if chosen else []


def _job(connection: Connection) -> ColumnElement[Any]:
    # SQLite keeps whatever type a producer gave it, and text that is no UTF-8; as bytes everything can be fetched.
    is_sqlite = connection.dialect.name == "sqlite"
    return (cast(inbox.c.job, LargeBinary) if is_sqlite else type_coerce(inbox.c.job, Text)).label("job")


def _head(connection: Connection, seq: int) -> bytes:
    if connection.dialect.name == "sqlite":
        with _blob(connection, seq) as blob:
            return blob.read(HEAD_BYTES)
    text = func.substr(inbox.c.job, 1, HEAD_BYTES)
    return _bytes(connection.execute(select(text).where(inbox.c.seq == seq)).scalar_one())[:HEAD_BYTES]


def _blob(connection: Connection, seq: int) -> sqlite3.Blob:
    """Open a job in SQLite. Its length() and substr() read the whole job first, from 3.43 on octet_length() does not;
    a handle does not, in any version, and is opened sooner than a statement is run."""
    driver: Any = connection.connection.dbapi_connection
    opened: sqlite3.Blob = driver.blobopen(inbox.name, "job", seq, readonly=True)
    return opened


def _bytes(job: str | bytes) -> bytes:
    return job.encode() if isinstance(job, str) else bytes(job)


class StoredEntry(NamedTuple):
    """An entry that could not be used, with where it was found and why."""

    queue: str
    reason: str
    message: str
    entry: bytes
    job_id: str | None = None


def write_dead_letters(connection: Connection, letters: Sequence[StoredEntry]) -> None:
    """Keep entries that can become nothing, with their bytes and the reason."""
    rows = [
        letter._asdict()
        | {name: clean_text(text) for name, text in letter._asdict().items() if name in ("queue", "reason", "message")}
        | {"job_id": letter.job_id and clean_text(letter.job_id[:LONGEST_ID])}
        for letter in letters
    ]
    if rows:
        connection.execute(insert(dead_letters).values(created_at=now()), rows)
