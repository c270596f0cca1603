"""One worker process: builds its parts (lease, writer, dispatcher, intake, clients), starts them and stops them."""

import asyncio
import os
import socket
import time
from concurrent.futures import Future
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import structlog

from worker.jobs.core.message import most_bytes
from worker.jobs.dispatcher import Dispatcher
from worker.jobs.endpoint_monitor import EndpointMonitor
from worker.jobs.intake import Intake
from worker.jobs.maintenance import CancelRequests, write_rejected_nudges
from worker.jobs.net.call import Clients, open_clients
from worker.jobs.store import reclaim
from worker.jobs.store.cancel import cancel
from worker.jobs.store.record import record
from worker.pool import memory
from worker.pool.liveness import Liveness
from worker.pool.pool import CALLS, TaskPool
from worker.pool.running_calls import RunningCalls
from worker.pool.running_task import Reason
from worker.process.schema_watch import SchemaWatch
from worker.process.startup_checks import start_lease
from worker.queue.connections import LONGEST_REPLY
from worker.queue.nudges import connect
from worker.run import AttemptContext
from worker.settings import Settings, need
from worker.store.engine import open_engine
from worker.store.group_commit import Batcher
from worker.store.heartbeat import HeldCalls, Lease, LeaseTimes
from worker.store.orphans import Orphans
from worker.webhooks.service import WebhookService

if TYPE_CHECKING:
    from worker.deliver import DeliveryContext

WRITE_OUT_S = 10.0

log = structlog.get_logger()


class WorkerProcess:
    """The parts of a worker process that live longer than a task.

    Celery calls `open` before the pool exists, `attach` when it runs, `detach` before it drains and `close` after it
    has ended. While the pool drains the lease is still renewed, so calls that finish then are recorded.
    """

    def __init__(self, settings: Settings) -> None:
        need(settings, "database_url", "redis_url", "endpoint")
        assert settings.database_url and settings.redis_url
        self.settings = settings
        self.engine = open_engine(settings.database_url, schema=settings.database_schema)
        self.redis = connect(settings.redis_url, longest=max(LONGEST_REPLY, most_bytes(settings.max_request_bytes)))
        self.liveness = Liveness()
        # These two lock the counter of finished jobs until the commit.
        self.batcher = Batcher(
            self.engine, max_items=settings.writer_batch, last=(record, cancel), turned=self.liveness.turns("writer")
        )
        self.webhooks = WebhookService(self.engine, self.redis, settings, self.liveness)
        self.clients: Clients = {}
        self.running = RunningCalls()
        self._pool: TaskPool | None = None
        self._makes_calls = True
        self.lease = Lease(
            self.engine,
            LeaseTimes(settings.lease_s, settings.beat_s),
            HeldCalls(self._ticked_at, self.cancel_all, reclaim.cancellations, self.cancel),
            name=f"{socket.gethostname()}:{os.getpid()}",
            slots=settings.concurrency,
            turned=self.liveness.turns("lease"),
        )
        self.endpoint_monitor = EndpointMonitor(
            self.engine, self.batcher, settings.endpoints, wake=lambda in_s: self.dispatcher.wake(in_s)
        )
        self.intake = Intake(
            self.engine,
            self.redis,
            settings,
            worker_id=lambda: self.worker_id,
            free_slots=self._free_slots,
            refill=lambda: self.dispatcher.refill(),
            is_open=self.endpoint_monitor.is_open,
            address_fault=self.webhooks.address_fault,
            liveness=self.liveness,
        )
        # Endpoints with a setting against repeating a request that may have been billed, as that of a lost worker.
        self._once_only = frozenset(each.name for each in settings.endpoints.values() if not each.retry_ambiguous)
        self._schema_watch = SchemaWatch(self.engine, settings, pool=lambda: self._pool)
        self.dispatcher = self._make_dispatcher()
        self._orphans = Orphans(
            self.engine, "job", held=reclaim.held_jobs, give_back=partial(reclaim.give_back, once_only=self._once_only)
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
            leader_tasks=(
                CancelRequests(self.engine, keep_s=settings.job_ttl_s).apply_cancel_requests,
                self.intake.drain_inbox,
                self.intake.return_lists,
                partial(write_rejected_nudges, self.engine, self.redis),
                self.webhooks.look_after,
            ),
            local_tasks=(self._release_orphans, self.endpoint_monitor.exchange, self._schema_watch.check_schema),
            webhooks=self.webhooks,
            turned=self.liveness.turns("dispatcher"),
            weight=settings.weight,
        )

    @property
    def worker_id(self) -> str:
        """The id of the lease; it changes when a lease is lost."""
        return self.lease.worker_id

    @cached_property
    def attempt_context(self) -> AttemptContext:
        """The parts that an attempt at a job uses."""
        return AttemptContext(
            worker_id=lambda: self.worker_id,
            writer=self.batcher,
            endpoints=self.settings.endpoints,
            clients=self.clients,
            monitor=self.endpoint_monitor,
            announce=self.webhooks.announce,
            wake=self.dispatcher.wake,
            running=self.running,
        )

    @cached_property
    def delivery_context(self) -> "DeliveryContext":
        """The parts that an attempt at a delivery uses; the pool must run, because it opens the client."""
        from worker.deliver import DeliveryContext  # and with it cryptography, see worker.app

        return DeliveryContext(
            worker_id=lambda: self.worker_id,
            writer=self.webhooks.batcher,
            claim=self.webhooks.claim,
            record=self.webhooks.record,
            client=self.webhooks.client,
            secret_keys=self.settings.secret_keys,
            announce=self.webhooks.announce,
            wake=self.dispatcher.wake,
            running=self.running,
        )

    def open(self) -> None:
        """Start the lease when the database is ready, then the writers. Raises NotReady."""
        memory.keep_one_arena()
        start_lease(self.lease, self.engine, self.redis, self.settings)
        self.batcher.start()
        self.webhooks.start()
        self.liveness.start()

    def attach(self, pool: TaskPool, *, intake: bool, calls: bool) -> None:
        """Start to take work: the pool runs. `intake`, `calls`: whether this process reads these queues."""
        self._pool, self._makes_calls = pool, calls
        self.running.loop = pool.loop
        self.liveness.ask("loop", self._ticked_at)
        # The option -c overrides the setting. The dispatcher fills the slots of all workers with jobs.
        self.lease.slots = pool.limit if calls else 0
        pool.submit(self._open_clients()).result(WRITE_OUT_S)
        pool.cleanups.append(self._close_clients)
        memory.collect_seldom()
        self.dispatcher.start()
        if intake:
            self.intake.start()

    def detach(self) -> None:
        """Stop taking work; running calls go on."""
        self.liveness.forget("intake", "inbox", "dispatcher")
        self.lease.slots = 0
        try:
            self.intake.stop()
        finally:
            self.dispatcher.stop()

    def close(self) -> None:
        """Commit the waiting writes, end the lease."""
        self.liveness.stop()
        written = self.batcher.close(timeout_s=WRITE_OUT_S)
        if not self.webhooks.close(timeout_s=WRITE_OUT_S) or not written:
            log.error(
                "worker.unwritten",
                reason="the database accepts no writes; other workers take the calls back when it does",
            )
        self.lease.stop()
        self.redis.close()
        self.engine.dispose()

    def cancel(self, job_ids: list[str]) -> None:
        """Cancel the calls of these jobs, if they run here; from any thread."""
        self.running.cancel(job_ids, Reason.revoked)

    def cancel_all(self) -> None:
        """Cancel every call, because the lease is lost; from any thread."""
        if self._pool is not None:
            self._pool.abort(Reason.lease_lost)

    def cancel_queued(self, job_id: str) -> None:
        """Cancel a job after its nudge was revoked before it ran; from any thread."""
        self.batcher.put(cancel, job_id).add_done_callback(_log_error)

    def _free_slots(self) -> int:
        """Return the slots for calls that are free here; 1 in a process without calls, for the others to take."""
        if self._pool is None:
            return 0
        return self._pool.free(CALLS) if self._makes_calls else 1

    def _release_orphans(self) -> None:
        """Release rows that the database assigns to us and no running call owns.

        Skipped while the event loop is stalled: only it knows the running calls.
        """
        ticked_at = self._ticked_at()
        if ticked_at is None or time.monotonic() - ticked_at > self.settings.tick_s:
            return
        for orphans in (self._orphans, self.webhooks.orphans):
            orphans.release(self.worker_id, self.running)

    def _ticked_at(self) -> float | None:
        return None if self._pool is None else self._pool.loop_ticked_at

    async def _open_clients(self) -> None:
        # In a thread: reading certificates can take long, and the watchdog ends a process whose loop stalls.
        endpoints = self.settings.endpoints.values()
        self.clients |= await asyncio.to_thread(open_clients, endpoints, kind=self.settings.http_transport)
        await self.webhooks.open_client()

    async def _close_clients(self) -> None:
        await self.webhooks.close_client()
        for client in self.clients.values():
            await client.aclose()


def _log_error(written: "Future[Any]") -> None:
    if error := written.exception():
        log.error("job.not_cancelled", error=type(error).__name__)
