"""What one worker process holds together: its lease, its writer, its dispatcher, its intake, its clients, its calls."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.jobs.core.message import most_bytes
from worker.jobs.dispatcher import Dispatcher
from worker.jobs.endpoint_monitor import EndpointMonitor
from worker.jobs.intake import Intake
from worker.jobs.maintenance import Marks, write_rejected_nudges
from worker.jobs.net.call import open_clients
from worker.jobs.store import reclaim
from worker.jobs.store.cancel import cancel
from worker.jobs.store.record import record
from worker.pool import memory, running_task
from worker.pool.liveness import Liveness
from worker.pool.pool import CALLS, TaskPool
from worker.pool.running_task import Call, Reason
from worker.process.schema_watch import SchemaWatch
from worker.process.startup_checks import NotReady, check_startup
from worker.queue.connections import LONGEST_REPLY
from worker.queue.nudges import connect
from worker.settings import Settings, need
from worker.store.engine import describe, is_away, open_engine, reason
from worker.store.fatal_errors import is_hopeless
from worker.store.group_commit import Batcher
from worker.store.heartbeat import HeldCalls, Lease, LeaseTimes
from worker.store.orphans import Orphans
from worker.webhooks.service import WebhookService

WRITE_OUT_S = 10.0

log = structlog.get_logger()


class WorkerProcess:
    """The parts of a worker process that outlive any one task.

    `open` comes before the pool exists, `attach` when it runs, `detach` before it drains, `close` after it has ended:
    calls that finish while the pool drains are still recorded under a lease that beats.
    """

    def __init__(self, settings: Settings) -> None:
        need(settings, "database_url", "redis_url", "endpoint")
        assert settings.database_url and settings.redis_url
        self.settings = settings
        self.engine = open_engine(settings.database_url, schema=settings.database_schema)
        self.redis = connect(settings.redis_url, longest=max(LONGEST_REPLY, most_bytes(settings.max_request_bytes)))
        self.liveness = Liveness()
        # Both lock the counter of finished jobs until the commit.
        self.batcher = Batcher(
            self.engine, max_items=settings.writer_batch, last=(record, cancel), turned=self.liveness.turns("writer")
        )
        self.webhooks = WebhookService(self.engine, self.redis, settings, self.liveness)
        self.clients: dict[str, httpx.AsyncClient] = {}
        self.calls: dict[str, list[Call]] = {}
        # Endpoints that refuse requests which ask for a stream's usage.
        self.usage_refused: set[str] = set()
        self._pool: TaskPool | None = None
        self._makes_calls = True
        self.lease = Lease(
            self.engine,
            LeaseTimes(settings.lease_s, settings.beat_s),
            HeldCalls(self._ticked_at, self._abort, reclaim.cancellations, self.cancel),
            name=f"{socket.gethostname()}:{os.getpid()}",
            slots=settings.concurrency,
            turned=self.liveness.turns("lease"),
        )
        self.health = EndpointMonitor(
            self.engine, self.batcher, settings.endpoints, wake=lambda in_s: self.dispatcher.wake(in_s)
        )
        self.intake = Intake(
            self.engine,
            self.redis,
            settings,
            worker_id=lambda: self.worker_id,
            free_slots=self._free_slots,
            refill=lambda: self.dispatcher.refill(),
            is_open=self.health.is_open,
            address_fault=self.webhooks.address_fault,
            liveness=self.liveness,
        )
        # Where an ambiguous request is not to be repeated, a lost worker's is not either.
        self._once_only = frozenset(one.name for one in settings.endpoints.values() if not one.retry_ambiguous)
        self._served = SchemaWatch(self.engine, settings, pool=lambda: self._pool)
        self.dispatcher = self._make_dispatcher()
        self._strays = Orphans(
            self.engine, "job", held=reclaim.held, give_back=partial(reclaim.give_back, once_only=self._once_only)
        )

    def _make_dispatcher(self) -> Dispatcher:
        settings = self.settings
        return Dispatcher(
            self.engine,
            self.redis,
            self.lease,
            tick_s=settings.tick_s,
            lease_s=settings.lease_s,
            window_s=settings.window_s,
            once_only=self._once_only,
            chores=(
                Marks(self.engine, keep_s=settings.job_ttl_s).settle,
                self.intake.drain_inbox,
                self.intake.return_lists,
                partial(write_rejected_nudges, self.engine, self.redis),
                self.webhooks.look_after,
            ),
            own_chores=(self._release_strays, self.health.exchange, self._served.look),
            webhooks=self.webhooks,
            turned=self.liveness.turns("dispatcher"),
            weight=settings.weight,
        )

    @property
    def worker_id(self) -> str:
        """The id of the lease; it changes when a lease is lost."""
        return self.lease.worker_id

    def open(self) -> None:
        """Check the database, begin the lease and the writer; wait while the database is away. Raises NotReady."""
        memory.keep_one_arena()
        pause_s = 0.2
        while True:
            try:
                check_startup(self.engine, self.redis, self.settings)
                self.lease.start()
                break
            except SQLAlchemyError as error:
                if not is_away(error) or is_hopeless(error):
                    raise NotReady(f"AFTERWORD_DATABASE_URL leads nowhere: {reason(error)}") from error
                log.warning("database.away", pause_s=pause_s, **describe(error))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)
        self.batcher.start()
        self.webhooks.start()
        self.liveness.start()

    def attach(self, pool: TaskPool, *, intake: bool, calls: bool) -> None:
        """Begin to take work: the pool runs. `intake`, `calls`: whether this process reads these queues."""
        self._pool, self._makes_calls = pool, calls
        self.liveness.ask("loop", self._ticked_at)
        # -c may say another number than the settings. The dispatcher fills the slots of all workers with jobs.
        self.lease.slots = pool.limit if calls else 0
        pool.submit(self._open_clients()).result(WRITE_OUT_S)
        pool.cleanups.append(self._close_clients)
        memory.collect_seldom()
        self.dispatcher.start()
        if intake:
            self.intake.start()

    def detach(self) -> None:
        """Stop taking work; what runs goes on."""
        self.liveness.forget("intake", "inbox", "dispatcher")
        self.lease.slots = 0
        try:
            self.intake.stop()
        finally:
            self.dispatcher.stop()

    def close(self) -> None:
        """Write out what waits, end the lease."""
        self.liveness.stop()
        written = self.batcher.close(timeout_s=WRITE_OUT_S)
        if not self.webhooks.close(timeout_s=WRITE_OUT_S) or not written:
            log.error("worker.unwritten", reason="the database takes nothing; its calls are taken back when it does")
        self.lease.stop()
        self.redis.close()
        self.engine.dispose()

    @contextmanager
    def holds(self, job_id: str) -> Iterator[None]:
        """Know the call that works on a job, from before its claim on: it can be ended by the job's id."""
        current = running_task.current()
        mine = self.calls.setdefault(job_id, [])
        if current is not None:
            mine.append(current)
        try:
            yield
        finally:
            if current is not None:
                mine.remove(current)
            # Another attempt of the same job may have come meanwhile; its entry is its own.
            if not mine and self.calls.get(job_id) is mine:
                del self.calls[job_id]

    def cancel(self, job_ids: list[str]) -> None:
        """End these calls as cancelled, where they run here; from any thread."""
        pool = self._pool
        for running in [one for job_id in job_ids for one in tuple(self.calls.get(job_id, ()))]:
            if pool is not None:
                pool.loop.call_soon_threadsafe(running.cancel, Reason.revoked)

    def cancel_queued(self, job_id: str) -> None:
        """Cancel a job whose nudge was revoked before it ran; from any thread."""
        self.batcher.put(cancel, job_id).add_done_callback(_tell)

    def _free_slots(self) -> int:
        """Return the slots for calls that are free here; 1 in a process without calls, for the others to take."""
        if self._pool is None:
            return 0
        return self._pool.free(CALLS) if self._makes_calls else 1

    def _release_strays(self) -> None:
        """Give back what is ours by the rows and forgotten here; while the loop turns, for it knows what runs."""
        ticked_at = self._ticked_at()
        if ticked_at is None or time.monotonic() - ticked_at > self.settings.tick_s:
            return
        for strays in (self._strays, self.webhooks.strays):
            strays.release(self.worker_id, self.calls)

    def _abort(self) -> None:
        if self._pool is not None:
            self._pool.abort(Reason.lease_lost)

    def _ticked_at(self) -> float | None:
        return None if self._pool is None else self._pool.loop_ticked_at

    async def _open_clients(self) -> None:
        # Off the loop: certificates take a while to read, and on a busy machine the watchdog would end us for it.
        endpoints = self.settings.endpoints.values()
        self.clients |= await asyncio.to_thread(open_clients, endpoints, kind=self.settings.http_transport)
        await self.webhooks.open_client()

    async def _close_clients(self) -> None:
        await self.webhooks.close_client()
        for client in self.clients.values():
            await client.aclose()


def _tell(written: "Future[Any]") -> None:
    if error := written.exception():
        log.error("job.not_cancelled", error=type(error).__name__)
