"""Takes rows from the SQL inbox for `jobs.intake`; writes dead letters for ACCEPT and `jobs.maintenance`."""

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
    """An unread row of the inbox. `job`: the job's bytes, or only the first HEAD_BYTES if the job is too large; `size`:
    the size of the whole job in bytes."""

    id: str
    job: bytes
    size: int


class StoredEntry(NamedTuple):
    """A dead letter to write: the entry's bytes, the queue it came from, and the reason."""

    queue: str
    reason: str
    message: str
    entry: bytes
    job_id: str | None = None


def take_inbox(connection: Connection, *, limit: int, max_bytes: int, longest: int = 2**30) -> list[Submitted]:
    """Delete the oldest rows from the inbox and return them; accept them in the same transaction.

    It takes at most `limit` rows and stops after `max_bytes`. Of a job with more than `longest` bytes it reads only the
    head; both databases return the size of a value without reading it.
    """
    sizes: dict[int, int] = {}
    for seq, size in _oldest(connection, limit):
        if max_bytes <= 0:
            break
        sizes[seq] = size
        max_bytes -= size if size <= longest else HEAD_BYTES
    heads = {seq: _head(connection, seq) for seq, size in sizes.items() if size > longest}
    whole = sizes.keys() - heads.keys()
    rows = [(row.seq, row.id, row.job) for row in _delete(connection, whole, _job_column(connection))]
    rows += [(row.seq, row.id, heads[row.seq]) for row in _delete(connection, heads.keys())]
    return [Submitted(id, _bytes(job), sizes[seq]) for seq, id, job in sorted(rows)]


def write_dead_letters(connection: Connection, entries: Sequence[StoredEntry]) -> None:
    """Insert rows into the table of dead letters."""
    rows = [
        entry._asdict()
        | {name: clean_text(text) for name, text in entry._asdict().items() if name in ("queue", "reason", "message")}
        | {"job_id": entry.job_id and clean_text(entry.job_id[:LONGEST_ID])}
        for entry in entries
    ]
    if rows:
        connection.execute(insert(dead_letters).values(created_at=now()), rows)


def _oldest(connection: Connection, limit: int) -> Iterator[tuple[int, int]]:
    """Yield `seq` and the job's size in bytes of the oldest rows."""
    oldest = select(inbox.c.seq).order_by(inbox.c.seq).limit(limit).with_for_update(skip_locked=True)
    if connection.dialect.name != "sqlite":
        # The row holds the size before compression, next to the pointer to the job's pieces (TOAST).
        for seq, size in connection.execute(oldest.add_columns(func.octet_length(inbox.c.job))):
            yield seq, size
        return
    for seq in connection.scalars(oldest):
        with _blob(connection, seq) as blob:
            yield seq, len(blob)


def _delete(connection: Connection, seqs: Iterable[int], *columns: ColumnElement[Any]) -> Sequence[Any]:
    """Delete rows of the inbox; return their `seq`, `id` and `columns`."""
    is_chosen = any_of(connection.dialect.name, inbox.c.seq, "chosen")
    statement = delete(inbox).where(is_chosen).returning(inbox.c.seq, inbox.c.id, *columns)
    chosen = sorted(seqs)
    return connection.execute(statement, {"chosen": chosen}).all() if chosen else []


def _job_column(connection: Connection) -> ColumnElement[Any]:
    # SQLite stores any type a producer inserts, also text that is not UTF-8; all of it can be fetched as bytes.
    is_sqlite = connection.dialect.name == "sqlite"
    return (cast(inbox.c.job, LargeBinary) if is_sqlite else type_coerce(inbox.c.job, Text)).label("job")


def _head(connection: Connection, seq: int) -> bytes:
    if connection.dialect.name == "sqlite":
        with _blob(connection, seq) as blob:
            return blob.read(HEAD_BYTES)
    text = func.substr(inbox.c.job, 1, HEAD_BYTES)
    return _bytes(connection.execute(select(text).where(inbox.c.seq == seq)).scalar_one())[:HEAD_BYTES]


def _blob(connection: Connection, seq: int) -> sqlite3.Blob:
    """Open a job's value in SQLite as a blob handle. A handle reads only the bytes asked for, in every version, and
    opens faster than a statement runs. length() and substr() read the whole job first; octet_length() does not, but
    exists only from 3.43 on."""
    driver: Any = connection.connection.dbapi_connection
    opened: sqlite3.Blob = driver.blobopen(inbox.name, "job", seq, readonly=True)
    return opened


def _bytes(job: str | bytes) -> bytes:
    return job.encode() if isinstance(job, str) else bytes(job)
