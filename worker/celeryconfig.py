"""Configure the Celery application: every setting with its reason, and the checks at a worker's start."""

import os
from ssl import CERT_REQUIRED
from typing import Any

from celery import Celery, bootsteps, signals
from celery.utils.nodenames import default_nodename, gethostname
from celery.worker import control, pidbox
from kombu.entity import Exchange, Queue

from afterword.sentinel import is_sentinel, read_sentinels
from worker.pool.pool import TaskPool
from worker.queue.consumer import QueueReadingStep
from worker.queue.nudges import PRIORITIES, TASKS
from worker.settings import Settings

QUEUES = ("chat.intake", "chat.run", "webhooks")
REVOCATIONS = frozenset({"revoke", "terminate"})


def configure(app: Celery, settings: Settings, *, queues: tuple[str, ...] = QUEUES) -> None:
    """Set the settings, steps and queues of `app`.

    The caller must register a task for each queue of nudges, named as in worker.queue.nudges.TASKS.
    """
    app.conf.update(**_broker(settings), **_tasks(queues), **_worker(settings))
    signals.celeryd_init.connect(name_node)
    app.steps["worker"].add(StartupChecks)
    app.steps["consumer"].add(QueueReadingStep)


def _broker(settings: Settings) -> dict[str, Any]:
    # A worker without a redis_url refuses to start. A client's error then names this default address.
    url = settings.redis_url or "redis://localhost:6379/0"
    sentinels = url if is_sentinel(url) else None
    url = read_sentinels(url).redis_url if sentinels else url
    return {
        # With Sentinel: the first sentinel, with Redis' login and database. kombu would split the URL at a semicolon.
        "broker_url": url.replace(";", "%3B"),
        # With our own transport, kombu treats rediss:// without this parameter as a connection without TLS.
        "broker_use_ssl": {"ssl_cert_reqs": CERT_REQUIRED} if url.startswith("rediss:") else None,
        # kombu's Redis transport, without acknowledgements and without our queues.
        "broker_transport": "worker.queue.remote_control:Transport",
        "broker_transport_options": {
            # kombu's default has four priorities, our contract ten.
            "priority_steps": list(PRIORITIES),
            # A silent server causes an error within seconds, instead of a worker that hangs for ever.
            "socket_timeout": 5.0,
            "socket_connect_timeout": 3.0,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "client_name": "afterword",
            "sentinels": sentinels,
        },
        # A worker started before Redis waits for Redis. (queue.consumer.Consumer sets the pauses.)
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # After a failover Redis answers with protocol errors; by default these end the worker.
        "broker_channel_error_retry": True,
        # Own exchanges keep our commands apart from those of other Celery applications on the same Redis.
        "control_exchange": "afterword",
        "event_exchange": "afterword.events",
        "event_queue_prefix": "afterword.events",
    }


def _tasks(queues: tuple[str, ...]) -> dict[str, Any]:
    return {
        # The unnamed exchange needs no bindings in Redis, and FLUSHALL would delete bindings.
        "task_queues": [_queue(name) for name in queues],
        "task_default_queue": "chat.intake",
        "task_default_exchange": "",
        "task_default_routing_key": "chat.intake",
        # A misspelt queue name is an error for its producer, not a list without a reader.
        "task_create_missing_queues": False,
        # JSON only, because a pickle can run code.
        "task_serializer": "json",
        "accept_content": ["json"],
        # SQL is the only truth: no results in Redis, and no acknowledgement after a task.
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": False,
        # While Redis is away, a producer gets an error within a second; with Celery's defaults it would take longer.
        "task_publish_retry_policy": {
            "max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2
        },
    }  # fmt: skip


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        "worker_pool": "worker.pool.pool:TaskPool",
        "worker_consumer": "worker.queue.consumer:Consumer",
        "worker_concurrency": settings.concurrency,
        # The slots of chat.run are worker_concurrency, or -c.
        "afterword_slots": {"webhooks": settings.webhook_slots},
        "afterword_drain_s": settings.drain_s,
        # A loop blocked for a third of the lease stops its renewal. After half of it the watchdog ends the process.
        "afterword_block_s": settings.lease_s / 2,
        "afterword_uvloop": settings.loop == "uvloop",
        # The pool counts slots. Celery's own prefetch limits, with their reduction and restoring, are switched off.
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
        "worker_disable_rate_limits": True,
        # Concerns only acks_late tasks, and we have none. False would log a warning at each reconnect.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Each event costs a publication, and SQL has the same facts.
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # structlog writes all log lines.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def name_node(instance: Any, **_: Any) -> None:
    """Give a worker without `-n` a unique node name: of two workers `celery@host`, `inspect` shows only one."""
    if instance.hostname == default_nodename(""):
        instance.hostname = f"afterword-{os.getpid()}@{gethostname()}"


class StartupChecks(bootsteps.Step):  # type: ignore[misc]  # Celery publishes no types
    """Refuses unsupported options with a sentence, and removes remote-control commands that strangers could send."""

    def __init__(self, worker: Any, autoscale: Any = None, **options: Any) -> None:
        super().__init__(worker, **options)
        pool = worker.pool_cls
        if not (isinstance(pool, type) and issubclass(pool, TaskPool)):
            asked = getattr(pool, "__module__", pool)
            raise SystemExit(
                f"-P asks for the pool {asked}, but this worker runs on its own pool only; start it without -P"
            )
        if autoscale:
            raise SystemExit(f"--autoscale is {autoscale}, but this worker runs all calls in one process; use -c")
        for queue in TASKS.keys() & worker.app.amqp.queues.consume_from.keys():
            if TASKS[queue] not in worker.app.tasks:
                raise SystemExit(f"the queue {queue} is read, but its task {TASKS[queue]} is not registered")
        _close_panel()
        pidbox.Pidbox.reset = _keep_mailbox


def _keep_mailbox(mailbox: Any) -> None:
    """Do nothing after a failed command. Celery would close the mailbox and open another: that costs four connections
    for each bad broadcast of any client of Redis, and commands in between are lost."""


def _close_panel() -> None:
    """Remove all commands except inspection and revocation, because any client of Redis could send `shutdown`."""
    panel = control.Panel
    kept = {name for name, command in panel.meta.items() if command.type == "inspect" or name in REVOCATIONS}
    aliases = {panel.meta[name].alias for name in kept}
    for name in panel.data.keys() - kept - aliases:
        del panel.data[name]
        panel.meta.pop(name, None)
    panel.data["revoke"] = _revoke


def _revoke(state: Any, task_id: Any, terminate: bool = True, signal: Any = None, **options: Any) -> Any:
    """Revoke tasks by id. A running task is cancelled too: that ends no process, and the job must end."""
    return control.revoke(state, task_id, terminate=True, signal=signal, **options)
