"""Remote control: kombu's Redis transport without acknowledgements and without our queues, hardened against bad input.

Any client of Redis can publish on the control exchange, and can write any bytes into kombu's sets of bindings. kombu
reads both on the hub's thread, and an exception there ends the worker or restarts its consumer. This transport drops
unreadable input with a log line; a broadcast may be lost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from time import monotonic
from typing import Any, Final

import structlog
from kombu.transport import redis, virtual
from redis import RedisError
from redis.exceptions import NoPermissionError, ResponseError

from afterword.sentinel import read_sentinels
from worker.queue.connections import RedisPool
from worker.queue.keys import INTAKE, is_wrong_type
from worker.queue.nudges import TASKS
from worker.queue.sentinel import PrimaryWatch

log = structlog.get_logger(__name__)

# worker.jobs.intake reads chat.intake, queue.reader the other two.
NOT_BY_KOMBU: Final = frozenset({*TASKS, INTAKE})
# Enough to revoke 17,000 ids. Parsing JSON blocks the hub for up to 100 ms per MiB.
LONGEST_MESSAGE: Final = 1024 * 1024
# Each client that runs `inspect` binds a queue for its answers.
MOST_BINDINGS: Final = 10_000


class QoS(virtual.QoS):
    """Without acknowledgements: it keeps no message and restores none."""

    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Return True, because the pool counts the slots."""
        return True

    def append(self, message: Any, delivery_tag: str) -> None:
        """Do not keep the message."""

    def ack(self, delivery_tag: str) -> None:
        """Do nothing."""

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Do nothing."""


@contextmanager
def _without(queue: str) -> Iterator[None]:
    """Log and ignore a permanent refusal of Redis: a missing right, or a key with a wrong type."""
    try:
        yield
    except ResponseError as error:
        if not (is_wrong_type(error) or isinstance(error, NoPermissionError)):
            raise
        log.warning("control.not_bound", queue=queue[:100], error=str(error)[:200])


class Channel(redis.Channel):
    """kombu's channel; a step that cannot read foreign bytes drops them with a log line."""

    from_transport_options = (*redis.Channel.from_transport_options, "sentinels")  # type: ignore[assignment]  # one more
    # The address of the sentinels, if Redis runs behind Sentinel.
    sentinels: str | None = None
    QoS = QoS  # type: ignore[assignment]  # a virtual.QoS, not kombu's Redis QoS
    # kombu's keys for acknowledgements. They are off; own names keep other applications safe if kombu writes any.
    unacked_key = "afterword.unacked"
    unacked_index_key = "afterword.unacked_index"
    unacked_mutex_key = "afterword.unacked_mutex"

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Consume, except our queues: `Window` and the intake read those."""
        if queue not in NOT_BY_KOMBU:
            super().basic_consume(queue, *args, **kwargs)  # type: ignore[no-untyped-call]

    def get_table(self, exchange: Any) -> list[tuple[str, ...]]:
        """Return the readable bindings of an exchange, at most MOST_BINDINGS."""
        key = self.keyprefix_queue % (exchange,)
        try:
            with self.conn_or_acquire() as client:
                members = client.srandmember(key, MOST_BINDINGS)
        except self.ResponseError as error:
            log.warning("control.not_bound", key=key[:100], error=str(error)[:200])
            return []
        parts = [tuple(member.decode("utf-8", "replace").split(self.sep)) for member in members]
        return [binding for binding in parts if len(binding) == 3]

    def maybe_refresh_binding_expiry(self) -> None:
        """Renew our binding. A refusal of Redis is only logged, because jobs do not need the binding."""
        try:
            super().maybe_refresh_binding_expiry()  # type: ignore[no-untyped-call]
        except self.ResponseError as error:
            log.warning("control.not_bound", error=str(error)[:200])
            # Prevents a retry at once: kombu records only the time of a success.
            self._binding_expiry_refreshed_at = self._bindings_swept_at = monotonic()

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        # Broadcasts come by subscription, even if the key of the bindings has a wrong type. That key is not renamed,
        # because other applications use kombu's names too.
        with _without(queue):
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[no-untyped-call]

    def _size(self, queue: str) -> int:
        with _without(queue):
            return int(super()._size(queue))  # type: ignore[no-untyped-call]
        return 0

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        with _without(queue):
            super()._delete(queue, *args, **kwargs)  # type: ignore[no-untyped-call]

    def _get_pool(self, asynchronous: bool = False) -> RedisPool:
        # Like kombu's method, with our pool, and our own search for the primary.
        params = self._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=params["db"])
        return RedisPool(**params, watch=PrimaryWatch(read_sentinels(self.sentinels)) if self.sentinels else None)

    def _receive(self) -> bool:
        """Read all messages. In kombu's method a connection that ends between messages would restart the consumer."""
        client = self.subclient
        received = [self._receive_one(client)]
        while self._has_more(client):
            received.append(self._receive_one(client))
        return any(received)

    def _has_more(self, client: Any) -> bool:
        # Without a socket `can_read` would connect.
        if client.connection is None or client.connection._sock is None:
            return False
        try:
            return bool(client.connection.can_read(timeout=0))
        except RedisError as error:
            self._lose(client, error)
            return False

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)  # type: ignore[no-untyped-call]
        except Empty:
            return None
        except self.ResponseError as error:
            # Redis refuses the subscription, for example to a user without the right. A retry would repeat for ever.
            log.warning("control.refused", error=str(error)[:200])
        except RedisError as error:
            self._lose(client, error)
        except Exception as error:
            log.warning("control.unreadable", error=type(error).__name__)
        return None

    def _lose(self, client: Any, error: RedisError) -> None:
        # Closed by queue.connections, or by Redis because this client is 32 MB behind. The hub's next turn subscribes
        # again; if Redis is away, that raises an error and Celery reconnects.
        log.warning("control.lost", error=str(error)[:200])
        client.connection.disconnect()

    def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._handle_message(client, response)  # type: ignore[no-untyped-call]
        data = payload["data"]
        if isinstance(data, bytes) and len(data) > LONGEST_MESSAGE:
            log.warning("control.too_large", size=len(data), allowed=LONGEST_MESSAGE)
            payload["data"] = None
        return payload


class Transport(redis.Transport):
    """`broker_transport = "worker.queue.remote_control:Transport"`."""

    Channel = Channel
    _leave_hub: Callable[[], None] | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Register with the hub, and note the callbacks to remove later: kombu would leave them in the hub for ever."""
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        added = loop.on_tick - before
        self._leave_hub = lambda: loop.on_tick.difference_update(added)

    def close_connection(self, connection: Any) -> None:
        """Close the channels and leave the hub."""
        if self._leave_hub is not None:
            self._leave_hub()
        super().close_connection(connection)  # type: ignore[no-untyped-call]
