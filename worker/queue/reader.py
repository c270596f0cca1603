"""Read the nudges of one queue from Redis on the hub's thread, never more than the queue has free slots.

At every turn of the hub one script pops as many entries as there are free slots, so a freed slot is used at once. When
the lists are empty, the reader waits at a doorbell: a blocking pop (BRPOP) on its own connection. Without a free slot
the reader sends nothing to Redis. After a Redis error the reader tries again; Celery does not see the error.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import structlog
from redis import Redis, RedisError
from redis.connection import Connection

from worker.queue.keys import is_wrong_type, rename_misplaced_keys
from worker.queue.list_heads import ListEntry, in_groups_of
from worker.queue.nudges import ENTRY_BYTES, POP, REJECTED, REJECTED_BYTES, Nudge, RejectedEntry, priority_lists, read

log = structlog.get_logger(__name__)

# BRPOP returns after DOORBELL_S at the latest. Without an answer after OVERDUE_S the connection is dead.
DOORBELL_S = 5
OVERDUE_S = DOORBELL_S + 3.0
RETRY_S = 0.5
MOST_AT_ONCE = 256
MOST_BYTES = 4 * 1024 * 1024
# Rejected entries kept here while Redis is out of memory and refuses them.
MOST_HELD = 1000


class Hub(Protocol):
    """The part of kombu's hub that the reader uses, with types: kombu's own methods have no annotations."""

    on_tick: set[Callable[[], None]]

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: Any) -> object: ...
    def remove_reader(self, fd: int) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object]) -> object: ...


class Slots(Protocol):
    """The part of the pool that the reader uses. A protocol, because tests count slots without a pool."""

    def free(self, queue: str) -> int: ...
    def soon(self, callback: Callable[[], None]) -> None: ...


class Window:
    """The reader of one queue. `deliver(nudge)`, given to `open`, takes a slot of the queue or drops the nudge."""

    def __init__(self, queue: str, redis: Redis, *, hub: Hub, slots: Slots) -> None:
        self.queue = queue
        self._redis, self._hub, self._slots = redis, hub, slots
        self._deliver: Callable[[Nudge], None] | None = None
        self._lists = priority_lists(queue)
        self._pop = redis.register_script(POP)
        self._rejected: deque[bytes] = deque(maxlen=MOST_HELD)
        self._doorbell: Connection | None = None
        self._doorbell_fd = -1
        self._waiting_since: float | None = None
        self._retry_at = 0.0

    def open(self, deliver: Callable[[Nudge], None]) -> None:
        """Start reading at the hub's next turn, or continue after `pause`."""
        self._deliver = deliver
        self._hub.on_tick.add(self.tick)
        if self._doorbell is not None:
            self._hub.add_reader(self._doorbell_fd, self._run_guarded, self._receive)
        if self._waiting_since is not None:
            # The time of the pause does not count as waiting for an answer.
            self._waiting_since = monotonic()

    def pause(self) -> None:
        """Leave the hub. An entry that BRPOP returns during the pause waits in the connection."""
        self._deliver = None
        self._hub.on_tick.discard(self.tick)
        if self._doorbell is not None:
            self._hub.remove_reader(self._doorbell_fd)

    def close(self) -> None:
        """Stop reading, and push an entry that BRPOP has returned back to its list.

        An entry that arrives at this moment is lost; the dispatcher sends its nudge again.
        """
        self.pause()
        try:
            self._push_back()
        except (RedisError, OSError) as error:
            log.warning("window.not_put_back", queue=self.queue, error=str(error)[:200])
        self._close_doorbell()

    def tick(self) -> None:
        """Take the entries that may start now. Every turn of the hub calls this, so an idle call must be cheap."""
        now = monotonic()
        if self._deliver is None:
            return  # a late timer or hub callback, after `pause`
        if self._waiting_since is not None:
            if now - self._waiting_since > OVERDUE_S:
                self._retry_later(TimeoutError(f"no answer to BRPOP for {OVERDUE_S} s"))
        elif now >= self._retry_at and (free := self._slots.free(self.queue)) > 0:
            self._run_guarded(lambda: self._fill(min(free, MOST_AT_ONCE)))

    def _fill(self, wanted: int) -> None:
        shown = self._pop(keys=self._lists, args=[ENTRY_BYTES, REJECTED_BYTES, wanted, MOST_BYTES])
        entries = [ListEntry(*pair) for pair in in_groups_of(2, shown)]
        for entry in entries:
            self._take(entry)
        self._push_rejected()
        if len(entries) < wanted:
            self._wait_at_doorbell()
        elif self._slots.free(self.queue) > 0:
            # More entries may wait, and nothing else wakes the hub. Its other work comes first.
            self._slots.soon(self.tick)

    def _take(self, entry: ListEntry) -> None:
        match read(self.queue, entry.head, entry.size):
            case Nudge() as nudge:
                if nudge.ignored:
                    log.info("nudge.options_ignored", queue=self.queue, id=nudge.celery_id, options=nudge.ignored)
                assert self._deliver is not None
                self._deliver(nudge)
            case RejectedEntry() as rejected:
                log.warning("nudge.rejected", queue=self.queue, reason=rejected.reason, size=entry.size)
                self._rejected.append(rejected.as_json())

    def _push_rejected(self) -> None:
        if self._rejected:
            self._redis.lpush(REJECTED, *self._rejected)
            self._rejected.clear()

    def _wait_at_doorbell(self) -> None:
        """Send BRPOP without waiting; its answer makes the connection readable."""
        doorbell = self._doorbell or self._open_doorbell()
        doorbell.send_command("BRPOP", *self._lists, DOORBELL_S)  # type: ignore[no-untyped-call]
        self._waiting_since = monotonic()

    def _open_doorbell(self) -> Connection:
        doorbell = self._doorbell = self._redis.connection_pool.get_connection()
        self._doorbell_fd = doorbell._sock.fileno()  # type: ignore[attr-defined]  # connected by the pool
        self._hub.add_reader(self._doorbell_fd, self._run_guarded, self._receive)
        return doorbell

    def _receive(self) -> None:
        if self._doorbell is None or self._waiting_since is None:
            raise ConnectionError("Redis closed the idle connection")
        answer = self._doorbell.read_response()
        self._waiting_since = None
        if answer is not None:
            self._take(ListEntry(len(answer[1]), answer[1]))
            self._push_rejected()
        self.tick()

    def _push_back(self) -> None:
        if self._doorbell is None or self._waiting_since is None or not self._doorbell.can_read(timeout=0):
            return
        if answer := self._doorbell.read_response():
            self._redis.rpush(*answer)

    def _run_guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (RedisError, OSError) as error:
            self._retry_later(error)
        except Exception as error:
            # An exception on the hub's thread would end the worker. The dispatcher sends popped nudges again.
            log.exception("window.failed", queue=self.queue)
            self._retry_later(error)

    def _retry_later(self, error: Exception) -> None:
        log.warning("window.unreadable", queue=self.queue, error=str(error)[:200], retry_s=RETRY_S)
        self._close_doorbell()
        if is_wrong_type(error):
            with suppress(RedisError):
                rename_misplaced_keys(self._redis)
        self._retry_at = monotonic() + RETRY_S
        # The timer must fire after `_retry_at`, never before.
        self._hub.call_later(RETRY_S * 1.1, self.tick)

    def _close_doorbell(self) -> None:
        self._waiting_since = None
        if self._doorbell is not None:
            self._hub.remove_reader(self._doorbell_fd)
            self._doorbell.disconnect()  # type: ignore[no-untyped-call]
            self._redis.connection_pool.release(self._doorbell)
            self._doorbell = None
