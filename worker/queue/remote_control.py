"""Remote control: kombu's Redis transport without acknowledgements, deaf to our queues, and safe from what arrives.

Anyone who reaches Redis can publish on the control exchange, and write what they like into kombu's sets of bindings.
kombu reads both on the thread of Celery's hub, where an exception ends the worker or restarts its consumer. Here what
cannot be read is dropped with a log line; a broadcast may be lost.
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

# chat.intake has a reader of its own, see worker.intake.
NOT_BY_KOMBU: Final = frozenset({*TASKS, INTAKE})
# A revocation of 17,000 ids. Reading JSON costs the hub 100 ms a MiB at the worst.
LONGEST_MESSAGE: Final = 1024 * 1024
# Where answers to an inspection go: a queue for each client that asks.
MOST_BINDINGS: Final = 10_000


class QoS(virtual.QoS):
    """Acknowledges nothing, remembers nothing, restores nothing."""

    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Say yes: slots are counted where the tasks run."""
        return True

    def append(self, message: Any, delivery_tag: str) -> None:
        """Forget the message."""

    def ack(self, delivery_tag: str) -> None:
        """Do nothing."""

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Do nothing."""


@contextmanager
def _without(queue: str) -> Iterator[None]:
    """Go on without what Redis refuses for good: this user may not, or somebody's key has another type."""
    try:
        yield
    except ResponseError as error:
        if not (is_wrong_type(error) or isinstance(error, NoPermissionError)):
            raise
        log.warning("control.not_bound", queue=queue[:100], error=str(error)[:200])


class Channel(redis.Channel):
    """kombu's channel, of which each step that reads foreign bytes is guarded."""

    from_transport_options = (*redis.Channel.from_transport_options, "sentinels")  # type: ignore[assignment]  # one more
    # The address of the sentinels that know where Redis is, if there are any.
    sentinels: str | None = None
    QoS = QoS  # type: ignore[assignment]  # the one without acknowledgements is not of the Redis kind
    # kombu uses them for acknowledgements, which are off; should it ever, they are not the neighbours'.
    unacked_key = "afterword.unacked"
    unacked_index_key = "afterword.unacked_index"
    unacked_mutex_key = "afterword.unacked_mutex"

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Consume, but for our queues, which `Window` and the intake read."""
        if queue not in NOT_BY_KOMBU:
            super().basic_consume(queue, *args, **kwargs)  # type: ignore[no-untyped-call]

    def get_table(self, exchange: Any) -> list[tuple[str, ...]]:
        """Return the queues bound to an exchange, as far as they can be read."""
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
        """Renew our binding. What Redis refuses here hinders no work."""
        try:
            super().maybe_refresh_binding_expiry()  # type: ignore[no-untyped-call]
        except self.ResponseError as error:
            log.warning("control.not_bound", error=str(error)[:200])
            # Not at once again: kombu notes the time of a success only.
            self._binding_expiry_refreshed_at = self._bindings_swept_at = monotonic()

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        # A broadcast comes by subscription, whatever stands under the name of the set of bindings. It is left as it is:
        # kombu's names are our neighbours' too.
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
        # As kombu's, with our rule for connections, and with the primary found by our way.
        params = self._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=params["db"])
        return RedisPool(**params, watch=PrimaryWatch(read_sentinels(self.sentinels)) if self.sentinels else None)

    def _receive(self) -> bool:
        """Read what has come. Between two messages kombu would let the end of the connection restart the consumer."""
        client = self.subclient
        heard = [self._receive_one(client)]
        while self._has_more(client):
            heard.append(self._receive_one(client))
        return any(heard)

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
            # Redis refuses to subscribe, as to a user without the channel. To ask again would be asked for ever.
            log.warning("control.refused", error=str(error)[:200])
        except RedisError as error:
            self._lose(client, error)
        except Exception as error:
            log.warning("control.unreadable", error=type(error).__name__)
        return None

    def _lose(self, client: Any, error: RedisError) -> None:
        # Ended by the rule for connections, or by Redis, which drops a listener that is 32 MB behind. The hub's next
        # turn subscribes again; where Redis is away, that raises, and Celery connects again.
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
    _forget: Callable[[], None] | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Join the hub, to leave it when the connection closes: kombu's would be called at every turn for ever."""
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        ours = loop.on_tick - before
        self._forget = lambda: loop.on_tick.difference_update(ours)

    def close_connection(self, connection: Any) -> None:
        """Close the channels and leave the hub."""
        if self._forget is not None:
            self._forget()
        super().close_connection(connection)  # type: ignore[no-untyped-call]
