"""Configures the Celery application: every setting with its reason, and what a worker refuses at its start."""

from dataclasses import dataclass
from typing import Any

from celery import Celery, bootsteps
from celery.worker import control
from kombu.entity import Exchange, Queue

from worker.channel import Reading
from worker.nudge import PRIORITIES
from worker.pool import Pool

QUEUES = ("chat.intake", "chat.run", "webhooks")
REVOCATIONS = frozenset({"revoke", "terminate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A worker's numbers: slots of `chat.run` and of `webhooks`; seconds to finish at a shutdown; seconds the event
    loop may be silent (less than a lease)."""

    concurrency: int = 100
    webhook_slots: int = 20
    drain_s: float = 30.0
    block_s: float = 10.0


def configure(app: Celery, *, redis_url: str, limits: Limits, uvloop: bool = False) -> None:
    """Give `app` its settings and steps. Tasks are registered by the caller, by the names of worker.nudge.TASKS."""
    app.conf.update(_broker(redis_url), **_tasks(), **_worker(limits, uvloop=uvloop))
    app.steps["worker"].add(Terms)
    app.steps["consumer"].add(Reading)


def _broker(redis_url: str) -> dict[str, Any]:
    return {
        "broker_url": redis_url,
        # kombu's Redis transport without acknowledgements, deaf to our queues.
        "broker_transport": "worker.channel:Transport",
        "broker_transport_options": {
            # kombu's default knows four steps; the contract is ten.
            "priority_steps": list(PRIORITIES),
            # A peer that went silent is an error within seconds, not a worker that hangs for ever.
            "socket_timeout": 5.0,
            "socket_connect_timeout": 3.0,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "client_name": "afterword",
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


def _tasks() -> dict[str, Any]:
    return {
        # The unnamed exchange: a message needs no binding table in Redis, which FLUSHALL would take along.
        "task_queues": [_queue(name) for name in QUEUES],
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


def _worker(limits: Limits, *, uvloop: bool) -> dict[str, Any]:
    return {
        "worker_pool": "worker.pool:Pool",
        "worker_consumer": "worker.channel:Consumer",
        "worker_concurrency": limits.concurrency,
        # Only our own queue's slots are here; those of chat.run are -c.
        "afterword_slots": {"webhooks": limits.webhook_slots},
        "afterword_drain_s": limits.drain_s,
        "afterword_block_s": limits.block_s,
        "afterword_uvloop": uvloop,
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


class Terms(bootsteps.Step):  # type: ignore[misc]  # Celery publishes no types
    """Refuses, in one sentence, what this worker cannot be; removes the commands that strangers could send it."""

    def __init__(self, worker: Any, autoscale: Any = None, **options: Any) -> None:
        super().__init__(worker, **options)
        pool = worker.pool_cls
        if not (isinstance(pool, type) and issubclass(pool, Pool)):
            asked = getattr(pool, "__module__", pool)
            raise SystemExit(
                f"-P asks for the pool {asked}, but this worker runs on its own pool only; start it without -P"
            )
        if autoscale:
            raise SystemExit(f"--autoscale is {autoscale}, but slots do not cost a process here; use -c")
        _close_panel()


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
