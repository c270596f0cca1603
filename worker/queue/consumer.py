"""Celery's consumer: its broker connection carries remote control only, and `reader.Window` delivers the tasks.

Foreign bytes never reach Celery or kombu. `nudges.read` reads each entry of `chat.run` and `webhooks`, and this module
builds a new message for each valid entry. Nothing is acknowledged, so nothing must be restored, and kombu's shared
`unacked` keys stay untouched. If a nudge is lost, the dispatcher sends it again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown, requests

from worker.pool.running_task import Reason
from worker.queue.nudges import TASKS, Nudge, connect
from worker.queue.reader import Window

log = structlog.get_logger(__name__)

RECONNECT_S = (0.2, 0.4, 2.0)
# First and longest pause between two starts on a Redis that answers but refuses. Celery itself does not pause.
REFUSED_S = (0.1, 2.0)
FORGET_S = 10.0
SLICE_S = 0.05


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery publishes no types
    """`worker_consumer = "worker.queue.consumer:Consumer"`: always reconnects; a shutdown never cancels a job."""

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # These options have no settings. Our workers find each other in SQL, not by broadcast.
        quiet = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **kwargs)
        self._pause_s, self._broke_at = REFUSED_S[0], -math.inf

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long that takes; a stop signal ends the wait."""
        start_s, step_s, longest_s = RECONNECT_S

        def failed(error: Exception, pause_s: float) -> None:
            log.warning("broker.unreachable", error=str(error)[:200], retry_s=pause_s)

        conn.ensure_connection(
            failed,
            max_retries=None,
            interval_start=start_s,
            interval_step=step_s,
            interval_max=longest_s,
            callback=self._run_callbacks,
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Drop the connection, as Celery does, then pause, because the next start may fail at once too."""
        super().on_connection_error_after_connected(exc)
        first_s, longest_s = REFUSED_S
        again = time.monotonic() - self._broke_at < FORGET_S
        self._pause_s = min(2 * self._pause_s, longest_s) if again else first_s
        log.warning("broker.lost", error=str(exc)[:200], retry_s=self._pause_s)
        rested_at = time.monotonic() + self._pause_s
        while time.monotonic() < rested_at:
            self._run_callbacks()
            time.sleep(SLICE_S)
        self._broke_at = time.monotonic()

    def cancel_active_requests(self) -> None:
        """Cold shutdown: cancel the calls with the reason shutdown. Celery would revoke them and so cancel the jobs."""
        self.pool.abort(Reason.shutdown)

    def _run_callbacks(self) -> None:
        self.pool.hub_callbacks.run()
        maybe_shutdown()


class QueueReadingStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """The consumer's step that reads the queues of this worker (`-Q`)."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        redis = connect(_redis_url(consumer.app.conf))
        queues = TASKS.keys() & consumer.app.amqp.queues.consume_from.keys()
        self._windows = [Window(queue, redis, hub=consumer.hub, slots=consumer.pool) for queue in queues]

    def start(self, consumer: Any) -> None:
        """Open the windows. Celery has built its strategies, so nudges can be delivered."""
        for window in self._windows:
            window.open(deliver_to(consumer, window.queue))

    def stop(self, consumer: Any) -> None:
        """Close the windows at a shutdown; only pause them while Celery reconnects."""
        for window in self._windows:
            window.pause() if consumer.blueprint.state == bootsteps.RUN else window.close()


def _redis_url(conf: Any) -> str:
    return str(conf.broker_transport_options.get("sentinels") or conf.broker_url)


@dataclass(frozen=True, slots=True)
class NudgeMessage:
    """The parts of a message that Celery reads. Without a content type Celery does not decode the body."""

    headers: dict[str, Any]
    body: tuple[list[str], dict[str, Any], dict[str, Any]]
    properties: dict[str, Any]
    delivery_info: dict[str, Any]
    content_type: None = None
    content_encoding: None = None

    @property
    def payload(self) -> Any:
        return self.body


def message(queue: str, nudge: Nudge) -> NudgeMessage:
    """Build Celery's message from the queue's task, and the id and argument of an entry."""
    headers = {
        "task": TASKS[queue],
        "id": nudge.celery_id,
        "root_id": nudge.celery_id,
        "parent_id": None,
        "retries": 0,
        "argsrepr": repr([nudge.row_id]),
        "kwargsrepr": "{}",
        "ignore_result": True,
    }
    delivery = {"exchange": "", "routing_key": queue}
    return NudgeMessage(headers, ([nudge.row_id], {}, {}), {"correlation_id": nudge.celery_id}, delivery)


def deliver_to(consumer: Any, queue: str) -> Callable[[Nudge], None]:
    """Return a function that gives a nudge to Celery's strategy for the task: it logs, checks revocations, starts."""
    strategy = consumer.strategies[TASKS[queue]]
    callbacks = consumer.on_task_message

    def deliver(nudge: Nudge) -> None:
        if nudge.celery_id in requests:
            # This attempt runs here already. Celery finds requests by id, so a second would hide the first.
            return
        try:
            strategy(message(queue, nudge), None, _nothing, _nothing, callbacks)
        except Exception:
            # A failure with one entry must not end the worker. The dispatcher sends its nudge again.
            log.exception("nudge.not_delivered", queue=queue, id=nudge.celery_id)

    return deliver


def _nothing(*_: Any) -> None:
    """The acknowledge and reject functions of a message; nudges need neither."""
