"""The Celery application: its settings, its steps at start and stop, and the thin tasks.

`celery -A worker.app worker` starts a correct worker without a flag. The worker process (database, lease, writer,
dispatcher, intake) starts before the pool and ends after it; see worker/process/worker_process.py.
"""

from typing import Any

import structlog
from celery import Celery, bootsteps, signals

from worker import log as logging
from worker import run, settings
from worker.celeryconfig import QUEUES, configure
from worker.pool.pool import CALLS, async_task
from worker.process.startup_checks import NotReady
from worker.process.worker_process import WorkerProcess
from worker.queue.keys import INTAKE
from worker.queue.nudges import job_of
from worker.store.engine import UnusableDatabase, describe

log = structlog.get_logger()

try:
    chosen = settings.load()
except settings.BadSettings as error:
    raise SystemExit(f"afterword: bad settings\n{error}") from None

app = Celery("afterword")
configure(app, chosen, queues=QUEUES)

_processes: list[WorkerProcess] = []  # one item, from worker_init to worker_shutdown


@async_task(app, name="chat.run")
async def run_job(job_id: str) -> None:
    """Make one attempt at a job."""
    await run.attempt(_processes[0].attempt_context, job_id)


@async_task(app, name="webhook.deliver")
async def deliver_event(delivery_id: str) -> None:
    """Make one attempt at a delivery."""
    # Imported here: it needs cryptography, six megabytes that a worker without receivers can do without.
    from worker import deliver

    await deliver.attempt(_processes[0].delivery_context, delivery_id)


class WorkStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """Starts and stops the dispatcher, and the intake if `-Q` includes its queue, while the pool runs."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        queues = worker.app.amqp.queues.consume_from
        _processes[0].attach(worker.pool, intake=INTAKE in queues, calls=CALLS in queues)

    def stop(self, worker: Any) -> None:
        _processes[0].detach()

    def terminate(self, worker: Any) -> None:
        _processes[0].detach()


app.steps["worker"].add(WorkStep)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logging.configure(chosen)


@signals.worker_init.connect
def _open_process(**_: Any) -> None:
    try:
        process = WorkerProcess(chosen)
        process.open()
    except (settings.BadSettings, NotReady, UnusableDatabase) as error:
        raise SystemExit(f"afterword: {error}") from None
    except Exception as error:
        # Celery ignores an exception from a signal handler and would go on without a worker process.
        log.error("worker.not_started", **describe(error))
        raise SystemExit(f"afterword: the worker could not start: {type(error).__name__}; see the log") from error
    _processes.append(process)


@signals.worker_shutdown.connect
def _close_process(**_: Any) -> None:
    if _processes:
        _processes.pop().close()


@signals.task_revoked.connect
def _cancel_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    """Cancel the job of a revoked nudge. Otherwise the dispatcher would push the nudge and Celery drop it, for ever."""
    # Not for deliveries: their nudges are pushed again, because no user wants to cancel the webhook of a finished job.
    # The sender is the task; Celery's request object does not name it.
    if not _processes or request is None or getattr(sender, "name", None) != run_job.name:
        return
    if job_id := job_of(request.id) or next(iter(request.args), None):
        _processes[0].cancel_queued(job_id)
