"""How Celery's consumer meets Redis here: the broker connection carries remote control only (`worker.control`); tasks
come by `Window`.

Foreign bytes never reach Celery or kombu. Entries of `chat.run` and `webhooks` are read by worker.nudge, and each good
one becomes a message made here. Nothing is acknowledged, so there is nothing to restore and nothing of kombu's shared
`unacked` keys is touched: a nudge that is lost is repeated by the dispatcher.
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
# Between two starts on a Redis that answers but refuses: the first pause, and the longest. Celery has none.
REFUSED_S = (0.1, 2.0)
FORGET_S = 10.0
SLICE_S = 0.05


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery publishes no types
    """`worker_consumer = "worker.queue.consumer:Consumer"`: reconnects for ever and soon, and cancels calls our way."""

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # There are no flags for these in a settings file. Workers meet in SQL, not by broadcast.
        quiet = dict.fromkeys(("without_mingle", "without_gossip", "without_heartbeat"), True)
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **kwargs)
        self._pause_s, self._broke_at = REFUSED_S[0], -math.inf

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; a stop signal is heard meanwhile."""
        start_s, step_s, longest_s = RECONNECT_S

        def failed(error: Exception, pause_s: float) -> None:
            log.warning("broker.unreachable", error=str(error)[:200], retry_s=pause_s)

        conn.ensure_connection(
            failed,
            max_retries=None,
            interval_start=start_s,
            interval_step=step_s,
            interval_max=longest_s,
            callback=self._meanwhile,
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Let go of the connection, as Celery does, and rest before the next start: it may fail as fast."""
        super().on_connection_error_after_connected(exc)
        first_s, longest_s = REFUSED_S
        again = time.monotonic() - self._broke_at < FORGET_S
        self._pause_s = min(2 * self._pause_s, longest_s) if again else first_s
        log.warning("broker.lost", error=str(exc)[:200], retry_s=self._pause_s)
        rested_at = time.monotonic() + self._pause_s
        while time.monotonic() < rested_at:
            self._meanwhile()
            time.sleep(SLICE_S)
        self._broke_at = time.monotonic()

    def cancel_active_requests(self) -> None:
        """Cold shutdown: cancel the calls as a shutdown. Celery's way is a revocation, and that cancels the job."""
        self.pool.abort(Reason.shutdown)

    def _meanwhile(self) -> None:
        self.pool.errands.run()
        maybe_shutdown()


class QueueReadingStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """The consumer's step that reads the queues the worker was started for (`-Q`)."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        redis = connect(_redis_url(consumer.app.conf))
        queues = TASKS.keys() & consumer.app.amqp.queues.consume_from.keys()
        self._windows = [Window(queue, redis, hub=consumer.hub, slots=consumer.pool) for queue in queues]

    def start(self, consumer: Any) -> None:
        """Open the windows; Celery has just built its strategies, which deliver."""
        for window in self._windows:
            window.open(deliver_to(consumer, window.queue))

    def stop(self, consumer: Any) -> None:
        """Close them at a shutdown; only pause while Celery reconnects."""
        for window in self._windows:
            window.pause() if consumer.blueprint.state == bootsteps.RUN else window.close()


def _redis_url(conf: Any) -> str:
    return str(conf.broker_transport_options.get("sentinels") or conf.broker_url)


@dataclass(frozen=True, slots=True)
class NudgeMessage:
    """What Celery reads of a message. Without a content type the body is taken as it is."""

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
    """Build Celery's message from the three things we take from an entry: task (the queue's), id, argument."""
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
    """Return what hands a nudge to Celery: its own strategy for the task, which logs, checks revocations, starts."""
    strategy = consumer.strategies[TASKS[queue]]
    callbacks = consumer.on_task_message

    def deliver(nudge: Nudge) -> None:
        if nudge.celery_id in requests:
            # The same attempt runs here. Celery finds a request by its id; the second would hide the first.
            return
        try:
            strategy(message(queue, nudge), None, _nothing, _nothing, callbacks)
        except Exception:
            # One entry's trouble, whatever it is, is not the worker's end; its row is nudged again.
            log.exception("nudge.not_delivered", queue=queue, id=nudge.celery_id)

    return deliver


def _nothing(*_: Any) -> None:
    """Acknowledge or reject: there is nobody to tell."""
