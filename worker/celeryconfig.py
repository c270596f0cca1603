"""Configures the Celery application: every setting with its reason, and what a worker refuses at its start."""

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
    """Give `app` its settings and steps, and the queues it may consume.

    Tasks are registered by the caller, by the names of worker.nudge.TASKS, one for each queue of nudges.
    """
    app.conf.update(**_broker(settings), **_tasks(queues), **_worker(settings))
    signals.celeryd_init.connect(name_node)
    app.steps["worker"].add(StartupChecks)
    app.steps["consumer"].add(QueueReadingStep)


def _broker(settings: Settings) -> dict[str, Any]:
    # A worker without one has refused to start; a client says where it looked.
    url = settings.redis_url or "redis://localhost:6379/0"
    sentinels = url if is_sentinel(url) else None
    url = read_sentinels(url).redis_url if sentinels else url
    return {
        # Of several sentinels the first, with the login and the database of Redis. kombu would divide it at a ;.
        "broker_url": url.replace(";", "%3B"),
        # Through our own transport kombu takes rediss:// without a parameter for a connection without TLS.
        "broker_use_ssl": {"ssl_cert_reqs": CERT_REQUIRED} if url.startswith("rediss:") else None,
        # kombu's Redis transport without acknowledgements, deaf to our queues.
        "broker_transport": "worker.queue.remote_control:Transport",
        "broker_transport_options": {
            # kombu's default knows four steps; the contract is ten.
            "priority_steps": list(PRIORITIES),
            # A peer that went silent is an error within seconds, not a worker that hangs for ever.
            "socket_timeout": 5.0,
            "socket_connect_timeout": 3.0,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "client_name": "afterword",
            "sentinels": sentinels,
        },
        # A worker started before Redis waits for it. (How often it tries: worker.channel.Consumer.)
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # After a failover Redis answers with errors of the protocol; by default they end the worker.
        "broker_channel_error_retry": True,
        # Not Celery's own exchanges: other applications on the same Redis must not hear our commands, nor we theirs.
        "control_exchange": "afterword",
        "event_exchange": "afterword.events",
        "event_queue_prefix": "afterword.events",
    }


def _tasks(queues: tuple[str, ...]) -> dict[str, Any]:
    return {
        # The unnamed exchange: a message needs no binding table in Redis, which FLUSHALL would take along.
        "task_queues": [_queue(name) for name in queues],
        "task_default_queue": "chat.intake",
        "task_default_exchange": "",
        "task_default_routing_key": "chat.intake",
        # A misspelt queue is an error where it is written, not a list nobody reads.
        "task_create_missing_queues": False,
        # JSON only: a pickle is code.
        "task_serializer": "json",
        "accept_content": ["json"],
        # SQL is the only truth: no results, and nothing is acknowledged after its start.
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": False,
        # A producer behind a Redis that is away gets its error within a second, not after Celery's patience.
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
        # Those of chat.run are -c.
        "afterword_slots": {"webhooks": settings.webhook_slots},
        "afterword_drain_s": settings.drain_s,
        # The lease is not renewed from a third on; nothing is left to save after half of it.
        "afterword_block_s": settings.lease_s / 2,
        "afterword_uvloop": settings.loop == "uvloop",
        # Slots are counted in the pool; none of Celery's four ways to prefetch, reduce and restore has a part in it.
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
        "worker_disable_rate_limits": True,
        # Concerns acks_late tasks only, which we have none of; False would warn at each reconnect.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Events cost a publication each; what happens stands in SQL.
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # Log lines are structlog's.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def name_node(instance: Any, **_: Any) -> None:
    """Give a worker without `-n` a node name of its own: `celery@host` twice on one host hides one from `inspect`."""
    if instance.hostname == default_nodename(""):
        instance.hostname = f"afterword-{os.getpid()}@{gethostname()}"


class StartupChecks(bootsteps.Step):  # type: ignore[misc]  # Celery publishes no types
    """Refuses, in one sentence, what this worker cannot be; removes the commands that strangers could send it."""

    def __init__(self, worker: Any, autoscale: Any = None, **options: Any) -> None:
        super().__init__(worker, **options)
        pool = worker.pool_cls
        if not (isinstance(pool, type) and issubclass(pool, TaskPool)):
            asked = getattr(pool, "__module__", pool)
            raise SystemExit(
                f"-P asks for the pool {asked}, but this worker runs on its own pool only; start it without -P"
            )
        if autoscale:
            raise SystemExit(f"--autoscale is {autoscale}, but slots do not cost a process here; use -c")
        for queue in TASKS.keys() & worker.app.amqp.queues.consume_from.keys():
            if TASKS[queue] not in worker.app.tasks:
                raise SystemExit(f"the queue {queue} is read, but its task {TASKS[queue]} is not registered")
        _close_panel()
        pidbox.Pidbox.reset = _keep_mailbox


def _keep_mailbox(mailbox: Any) -> None:
    """Do nothing after a command that failed. Celery closes the mailbox and opens another: four connections for each
    broadcast that anyone who reaches Redis gets wrong, and a moment in which nobody listens."""


def _close_panel() -> None:
    """Leave only inspection and revocation: anyone who reaches Redis could otherwise send `shutdown`."""
    panel = control.Panel
    kept = {name for name, command in panel.meta.items() if command.type == "inspect" or name in REVOCATIONS}
    aliases = {panel.meta[name].alias for name in kept}
    for name in panel.data.keys() - kept - aliases:
        del panel.data[name]
        panel.meta.pop(name, None)
    panel.data["revoke"] = _revoke


def _revoke(state: Any, task_id: Any, terminate: bool = True, signal: Any = None, **options: Any) -> Any:
    """Revoke tasks by id. A running one is cancelled too: a call costs nobody a process, and its job is to end."""
    return control.revoke(state, task_id, terminate=True, signal=signal, **options)
