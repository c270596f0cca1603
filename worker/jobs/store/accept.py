"""ACCEPT: writes decoded entries in one transaction: queued jobs, refused jobs, aliases, dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from worker.core.dead_letter import DeadLetter
from worker.jobs.core.message import Job, Refusal, conflict
from worker.jobs.store import finished_feed
from worker.jobs.store.accept_rows import used_ids, write_aliases, write_jobs, write_requests
from worker.jobs.store.cancel import apply_cancel_requests
from worker.jobs.store.inbox import StoredEntry, write_dead_letters
from worker.store.tables import aliases, jobs


@dataclass(frozen=True, slots=True)
class Entry:
    """One message: its raw bytes, its queue (`submit_v1` for the SQL inbox), and the result of reading it.

    `alias`: the id of the Celery message or inbox row; it finds the job too, even if the job sets another `id`.
    """

    queue: str
    raw: bytes
    read: Job | Refusal | DeadLetter
    alias: str | None = None

    @property
    def acceptable(self) -> Job | Refusal:
        assert not isinstance(self.read, DeadLetter)
        return self.read

    @property
    def job(self) -> Job:
        read = self.acceptable
        return read.job if isinstance(read, Refusal) else read

    @property
    def ids(self) -> set[str]:
        """The ids that the producer may use for the job."""
        return set() if isinstance(self.read, DeadLetter) else {self.job.id, self.alias or self.job.id}


class Accepted(NamedTuple):
    """The result for one message. `outcome`: queued, refused, duplicate, conflict or dead; `due`: it may start now."""

    job_id: str | None
    outcome: str
    priority: int = 5
    due: bool = False


@dataclass(slots=True)
class _Batch:
    """The results so far, and the rows still to write in this transaction."""

    accepted: list[Accepted] = field(default_factory=list)
    dead_letters: list[StoredEntry] = field(default_factory=list)
    aliases: list[dict[str, str]] = field(default_factory=list)

    def add_dead_letter(self, entry: Entry, letter: DeadLetter) -> None:
        self.dead_letters.append(StoredEntry(entry.queue, letter.reason, letter.message, entry.raw, letter.id))
        self.accepted.append(Accepted(letter.id, "dead"))

    def add_duplicate(self, entry: Entry, job_id: str) -> None:
        self.accepted.append(Accepted(job_id, "duplicate"))
        self.add_alias(entry.job.id, job_id, "duplicate")
        self.add_alias(entry.alias, job_id, "duplicate")

    def add_alias(self, alias: str | None, job_id: str, outcome: str) -> None:
        if alias is not None and alias != job_id:
            self.aliases.append({"id": alias, "job_id": job_id, "outcome": outcome})


def accept(connection: Connection, entries: Sequence[Entry], *, job_ttl_s: float) -> list[Accepted]:
    """Write rows for every entry; return the results, in no particular order.

    Entries with the same id or idempotency key and the same request are one job, whether they come from Redis or SQL.
    A used key with another request becomes a visible failed job. A used id with another request becomes a dead letter,
    because its row exists already. Nothing is dropped. Jobs without a deadline get one in `job_ttl_s` seconds.
    """
    batch = _Batch()
    for entry in entries:
        if isinstance(entry.read, DeadLetter):
            batch.add_dead_letter(entry, entry.read)
    pending = [entry for entry in entries if not isinstance(entry.read, DeadLetter)]
    # The loop ends, because each round writes or resolves the first entry of every id and key. One round usually does.
    while pending:
        first, losers = _first_of_each(connection, pending)
        written = _insert(connection, first, batch, job_ttl_s=job_ttl_s)
        losers += [entry for entry in first if entry.job.id not in written]
        pending = _resolve(connection, losers, batch) if losers else []
    if batch.aliases:
        write_aliases(connection, batch.aliases)
    write_dead_letters(connection, batch.dead_letters)
    finished_feed.append_to_feed(
        connection,
        {result.job_id for result in batch.accepted if result.job_id and result.outcome in ("refused", "conflict")},
    )
    apply_cancel_requests(connection, ids={used for entry in entries for used in entry.ids})
    assert len(batch.accepted) == len(entries), "an entry was neither written nor resolved"
    return batch.accepted


def _first_of_each(connection: Connection, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Split off the losers: entries whose id is an alias, or whose id or key an earlier entry of the batch has."""
    aliased = used_ids(connection, [entry.job.id for entry in entries])
    ids: set[str] = set()
    keys: set[tuple[str, str]] = set()
    first: list[Entry] = []
    losers: list[Entry] = []
    for entry in entries:
        job = entry.job
        key = (job.tenant, job.idempotency_key) if job.idempotency_key and isinstance(entry.read, Job) else None
        if job.id in ids or job.id in aliased or key in keys:
            losers.append(entry)
            continue
        first.append(entry)
        ids.add(job.id)
        if key is not None:
            keys.add(key)
    return first, losers


def _insert(connection: Connection, entries: list[Entry], batch: _Batch, *, job_ttl_s: float) -> set[str]:
    """Insert the jobs that conflict with no existing row; return the inserted ids."""
    due = write_jobs(connection, [entry.acceptable for entry in entries], job_ttl_s=job_ttl_s)
    written = [entry for entry in entries if entry.job.id in due]
    if written:
        write_requests(connection, [entry.job for entry in written])
    for entry in written:
        batch.add_alias(entry.alias, entry.job.id, "accepted")
        batch.accepted.append(Accepted(entry.job.id, _outcome(entry), entry.job.priority, due[entry.job.id]))
    return set(due)


def _outcome(entry: Entry) -> str:
    if not isinstance(entry.read, Refusal):
        return "queued"
    return "conflict" if entry.read.code == "idempotency_conflict" else "refused"


def _resolve(connection: Connection, losers: list[Entry], batch: _Batch) -> list[Entry]:
    """Compare each loser with the existing row: duplicate, conflict or dead letter. Return entries to try again."""
    again: list[Entry] = []
    ids = {entry.job.id for entry in losers}
    known = dict(connection.execute(select(aliases.c.id, aliases.c.job_id).where(aliases.c.id.in_(sorted(ids)))).all())
    columns = select(jobs.c.id, jobs.c.tenant, jobs.c.idempotency_key, jobs.c.fingerprint)
    found = connection.execute(columns.where(jobs.c.id.in_(sorted(ids | set(known.values())))))
    by_id = {row.id: row for row in found}
    keys = sorted({(entry.job.tenant, entry.job.idempotency_key) for entry in losers if entry.job.idempotency_key})
    owner = columns.where(tuple_(jobs.c.tenant, jobs.c.idempotency_key).in_(keys), jobs.c.owns_key)
    by_key = {(row.tenant, row.idempotency_key): row for row in connection.execute(owner)} if keys else {}
    for entry in losers:
        job = entry.job
        if row := by_id.get(known.get(job.id, job.id)):
            if (row.tenant, row.fingerprint) == (job.tenant, job.fingerprint):
                batch.add_duplicate(entry, row.id)
            else:
                batch.add_dead_letter(entry, _id_conflict(job.id))
        elif row := by_key.get((job.tenant, job.idempotency_key)):
            if row.fingerprint == job.fingerprint:
                batch.add_duplicate(entry, row.id)
            else:
                again.append(Entry(entry.queue, entry.raw, conflict(job, row.id), entry.alias))
        else:  # the conflicting row is gone, or was never written
            again.append(entry)
    return again


def _id_conflict(job_id: str) -> DeadLetter:
    return DeadLetter(
        reason="id_conflict",
        message=f"the id {job_id} belongs to a job with another request or tenant; give every request its own id",
        id=job_id,
    )
