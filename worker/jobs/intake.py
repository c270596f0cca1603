"""INTAKE: a thread that turns entries of the Redis list `chat.intake` and of the SQL inbox into rows, in batches.

Each batch is taken from Redis in one atomic step (`intake_list`) and decoded by pure functions. Jobs and dead letters
are committed in one transaction, and only then is the batch deleted from Redis. Celery's consumer takes no part, so
running calls cannot slow intake. A bad entry cannot stop it: when a batch fails, each entry is accepted alone, and only
an entry that fails alone becomes a dead letter.
"""

import logging
import math
import threading
import time
from collections.abc import Callable

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.core.dead_letter import DeadLetter
from worker.jobs.entries import INBOX, EntryReader, not_accepted
from worker.jobs.inbox_watch import InboxWatch
from worker.jobs.intake_list import MOST_BYTES, EntryBatch, IntakeList
from worker.jobs.store.accept import AcceptResult, Entry, accept
from worker.jobs.store.inbox import InboxRow, take_inbox
from worker.jobs.store.tenant_usage import in_progress, slots_in_use
from worker.pool.liveness import Liveness
from worker.queue.keys import is_redis_away
from worker.queue.nudges import nudge, push_nudges
from worker.settings import Settings
from worker.store import leases
from worker.store.engine import describe, is_away, is_busy, succeeds

RUN_QUEUE = "chat.run"
PAUSE_S = (0.05, 2.0)
INBOX_BATCH = 500
# After jobs had to wait for a slot, intake leaves all nudges to the dispatcher for two of its refills, so that no later
# job starts before them.
REST_S = 0.5

log = structlog.get_logger()


class Intake:
    """The intake threads of one worker process.

    `free_slots()`: the slots of this process that are free. Intake pushes no nudges while Redis holds this many and
    those that are free in other processes.
    `refill()` is called when jobs wait for a slot. `is_open(endpoint)`: whether the endpoint's jobs may start at once.
    `address_fault(url)` returns the fault of a job's webhook URL, or None.
    """

    def __init__(  # noqa: PLR0913  parts and settings; a class around them would be unpacked at once
        self,
        engine: Engine,
        redis: Redis,
        settings: Settings,
        *,
        worker_id: Callable[[], str],
        free_slots: Callable[[], int],
        refill: Callable[[], None] = lambda: None,
        is_open: Callable[[str], bool] = lambda endpoint: True,
        address_fault: Callable[[str], str | None] = lambda url: None,
        liveness: Liveness | None = None,
    ) -> None:
        self._engine, self._redis, self._settings = engine, redis, settings
        self._free_slots, self._refill, self._rested_at = free_slots, refill, -math.inf
        liveness = liveness or Liveness()
        self._is_open, self._turned = is_open, liveness.turns("intake")
        self._reader = EntryReader(settings, address_fault)
        self._intake_list = IntakeList(redis, worker_id, batch=settings.intake_batch, longest=self._reader.longest)
        self._worker_id = worker_id
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="afterword-intake", daemon=True)]
        if engine.dialect.name == "sqlite":
            watch = InboxWatch(engine, self.drain_inbox, self._stopping, turned=liveness.turns("inbox"))
            self._threads.append(threading.Thread(target=watch.run, name="afterword-inbox", daemon=True))

    def start(self) -> None:
        self._turned()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads; put entries that were taken but not committed back into the queue."""
        self._stopping.set()
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(10.0)
        if not started:
            return
        try:
            self._intake_list.give_back(self._worker_id())
        except RedisError as error:
            log.warning("intake.not_returned", error=type(error).__name__)

    def drain_inbox(self) -> None:
        """Accept every row of the SQL inbox. The transaction that writes a batch's jobs also deletes its inbox rows."""
        taken = 1
        while taken and not self._stopping.is_set():
            try:
                taken = self._drain(INBOX_BATCH, self._reader.read_row)
            except Exception as error:
                _raise_if_away(error)
                taken = self._drain_one()

    def return_lists(self) -> None:
        """Return the lists of dead workers to the queue. The dispatcher calls this."""
        owners = self._intake_list.owners()
        if not owners:
            return
        with self._engine.begin() as connection:
            living = leases.living_workers(connection)
        for owner in sorted(owners - living.keys()):
            if moved := self._intake_list.give_back(owner):
                log.warning("intake.returned", worker=owner, messages=moved)

    def _run(self) -> None:
        pause_s = PAUSE_S[0]
        while not self._stopping.is_set():
            try:
                taken = self._intake_list.take()
                if taken.entries:
                    self._accept_taken(taken)
                elif taken.own is None:
                    self._stopping.wait(pause_s)  # Redis is full, so `take` did not block
                pause_s = PAUSE_S[0]
                self._turned()
                continue
            except Exception as error:
                if away := is_redis_away(error) or is_away(error) or is_busy(error):
                    self._turned()
                (log.warning if away else log.error)("intake.postponed", pause_s=pause_s, **describe(error))
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S[1])

    def _accept_taken(self, taken: EntryBatch) -> None:
        entries = [self._reader.read_message(entry) for entry in taken.entries]
        try:
            accepted = self._accept(entries)
        except Exception as error:
            _raise_if_away(error)
            accepted = [result for entry in entries for result in self._accept_alone(entry)]
        # Nudge first: if this process dies before `done`, the entries come again and are duplicates.
        self._announce(entries, accepted)
        self._intake_list.done(taken)

    def _accept_alone(self, entry: Entry) -> list[AcceptResult]:
        try:
            return self._accept([entry])
        except Exception as error:
            self._raise_if_general(error)
        try:
            return self._accept([entry])
        except Exception as error:
            self._raise_if_general(error)
            return self._accept([not_accepted(entry.queue, entry.raw)])

    def _accept(self, entries: list[Entry]) -> list[AcceptResult]:
        with self._engine.begin() as connection:
            return accept(connection, entries, job_ttl_s=self._settings.job_ttl_s)

    def _drain(self, limit: int, read: Callable[[InboxRow], Entry]) -> int:
        """Accept up to `limit` rows of the inbox; return the number of rows."""
        with self._engine.begin() as connection:
            rows = take_inbox(connection, limit=limit, max_bytes=MOST_BYTES, longest=self._reader.longest)
            entries = [read(row) for row in rows]
            accepted = accept(connection, entries, job_ttl_s=self._settings.job_ttl_s) if entries else []
        self._announce(entries, accepted)
        return len(rows)

    def _drain_one(self) -> int:
        """Accept the oldest row alone. If the row itself fails twice, it becomes a dead letter.

        Another worker may take the row between two tries. The next try then reads a different row, as usual.
        """
        tried_ids: list[str] = []

        def read(row: InboxRow) -> Entry:
            tried_ids.append(row.id)
            return not_accepted(INBOX, row.job, row.id) if tried_ids.count(row.id) > 2 else self._reader.read_row(row)

        for _ in range(2):
            try:
                return self._drain(1, read)
            except Exception as error:
                self._raise_if_general(error)
        return self._drain(1, read)

    def _raise_if_general(self, error: Exception) -> None:
        """Re-raise if the database is away or refuses a plain job too; otherwise log that it refused this entry."""
        plain = self._reader.plain()
        ttl_s = self._settings.job_ttl_s
        away = is_away(error) or is_busy(error)
        if away or not succeeds(self._engine, lambda connection: accept(connection, [plain], job_ttl_s=ttl_s)):
            raise error
        log.error("intake.refused", **describe(error))

    def _announce(self, entries: list[Entry], accepted: list[AcceptResult]) -> None:
        # Only the dispatcher nudges jobs of a paused or slow endpoint: it sends the probes and limits the starts.
        jobs = (entry.job for entry in entries if not isinstance(entry.read, DeadLetter))
        waiting = {job.id for job in jobs if not self._is_open(job.endpoint)}
        self._nudge([job for job in accepted if job.due and job.outcome == "queued" and job.job_id not in waiting])
        if logging.getLogger().isEnabledFor(logging.DEBUG):  # building an unused log line costs as much as decoding
            for result in accepted:
                log.debug("job.accepted", job_id=result.job_id, outcome=result.outcome)
        for result in accepted:
            if result.outcome == "dead":
                log.warning("message.buried", job_id=result.job_id)
        for entry in entries:
            if not isinstance(entry.read, DeadLetter) and entry.job.ignored:
                log.info("job.options_ignored", job_id=entry.job.id, ignored=list(entry.job.ignored))

    def _nudge(self, due: list[AcceptResult]) -> None:
        """Push nudges for the first of these jobs, as many as slots are free and no other job waits."""
        nudges = [(job.priority, nudge(job.job_id, 1)) for job in due if job.job_id]
        if not nudges:
            return
        is_rested = time.monotonic() >= self._rested_at
        try:
            pushed = self._push(nudges, self._free_slots()) if is_rested else 0
            if is_rested and pushed < len(nudges):
                pushed += self._push(nudges[pushed:], self._free_slots() + self._free_elsewhere())
        except (RedisError, SQLAlchemyError) as error:
            # Nothing is lost: the dispatcher finds the rows in SQL.
            log.warning("nudge.postponed", error=type(error).__name__, jobs=len(nudges))
            return
        if pushed < len(nudges):
            if is_rested:
                self._rested_at = time.monotonic() + REST_S
            self._refill()

    def _push(self, nudges: list[tuple[int, bytes]], room: int) -> int:
        return push_nudges(self._redis, RUN_QUEUE, nudges[:room], room=room)

    def _free_elsewhere(self) -> int:
        """Return the free slots of the other workers: the leader is perhaps one of them and looks only every second."""
        with self._engine.begin() as connection:
            calls = in_progress(connection)
        return slots_in_use(row for row in calls if row.worker_id != self._worker_id()).free


def _raise_if_away(error: Exception) -> None:
    """Re-raise if the database is away or busy; otherwise log it, because an entry may be the cause."""
    if is_away(error) or is_busy(error):
        raise error
    log.warning("intake.split", **describe(error))
