"""The Celery application: its settings, its steps at start and stop, and the thin tasks.

`celery -A worker.app worker` starts a correct worker without a flag. The host (database, lease, writer, dispatcher,
intake) begins before the pool and ends after it; see worker/process/worker_process.py.
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

_hosts: list[WorkerProcess] = []  # the one of this process, from worker_init to worker_shutdown


@async_task(app, name="chat.run")
async def run_job(job_id: str) -> None:
    """Make one attempt at a job."""
    await run.attempt(_hosts[0], job_id)


@async_task(app, name="webhook.deliver")
async def deliver_event(delivery_id: str) -> None:
    """Make one attempt at a delivery."""
    # Here, because cryptography is six megabytes that a worker without receivers never needs.
    from worker import deliver

    await deliver.attempt(_hosts[0], delivery_id)


class WorkStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """Takes work while the pool runs: the dispatcher, and the intake where its queue is asked for (`-Q`)."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        queues = worker.app.amqp.queues.consume_from
        _hosts[0].attach(worker.pool, intake=INTAKE in queues, calls=CALLS in queues)

    def stop(self, worker: Any) -> None:
        _hosts[0].detach()

    def terminate(self, worker: Any) -> None:
        _hosts[0].detach()


app.steps["worker"].add(WorkStep)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logging.configure(chosen)


@signals.worker_init.connect
def _open_host(**_: Any) -> None:
    try:
        host = WorkerProcess(chosen)
        host.open()
    except (settings.BadSettings, NotReady, UnusableDatabase) as error:
        raise SystemExit(f"afterword: {error}") from None
    except Exception as error:
        # Celery swallows what its signals raise, and would go on without a host.
        log.error("worker.not_started", **describe(error))
        raise SystemExit(f"afterword: the worker could not start: {type(error).__name__}; see the log") from error
    _hosts.append(host)


@signals.worker_shutdown.connect
def _close_host(**_: Any) -> None:
    if _hosts:
        _hosts.pop().close()


@signals.task_revoked.connect
def _cancel_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    """A nudge that was revoked before it ran would be pushed, and dropped, for ever: revoking it cancels the job."""
    # A revoked delivery is only nudged again: nobody means to cancel what a finished job has to say.
    # The sender is the task; Celery's context of a request has no name for it.
    if not _hosts or request is None or getattr(sender, "name", None) != run_job.name:
        return
    if job_id := job_of(request.id) or next(iter(request.args), None):
        _hosts[0].cancel_queued(job_id)
