"""Reads one queue's nudges from Redis as far as the queue has free slots, on the thread of Celery's hub.

While entries stand there, one script pops as many as there are free slots, at every turn of the hub: so at once when a
slot frees. When the lists are empty a blocking pop on a connection of its own is the doorbell. With no slot free
nothing is asked of Redis. Errors of Redis end here: the reader tries again, Celery hears nothing of it.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import structlog
from redis import Redis, RedisError
from redis.connection import Connection

from worker.queue.keys import is_wrong_type, put_aside
from worker.queue.list_heads import ListEntry, by
from worker.queue.nudges import ENTRY_BYTES, POP, REJECTED, REJECTED_BYTES, Nudge, Rejected, priority_lists, read

log = structlog.get_logger(__name__)

# The server answers the doorbell after this long at the latest; so much later the line is dead.
DOORBELL_S = 5
OVERDUE_S = DOORBELL_S + 3.0
RETRY_S = 0.5
MOST_AT_ONCE = 256
MOST_BYTES = 4 * 1024 * 1024
# Rejects that Redis would not take yet, when it is out of memory.
MOST_HELD = 1000


class Hub(Protocol):
    """What we use of kombu's."""

    on_tick: set[Callable[[], None]]

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: Any) -> object: ...
    def remove_reader(self, fd: int) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object]) -> object: ...


class Slots(Protocol):
    """What we use of the pool: how many tasks of a queue may start, and how to come back to Celery's thread soon."""

    def free(self, queue: str) -> int: ...
    def soon(self, errand: Callable[[], None]) -> None: ...


class Window:
    """The reader of one queue. `deliver(nudge)`, given with `open`, takes one of its slots or drops the nudge."""

    def __init__(self, queue: str, redis: Redis, *, hub: Hub, slots: Slots) -> None:
        self.queue = queue
        self._redis, self._hub, self._slots = redis, hub, slots
        self._deliver: Callable[[Nudge], None] | None = None
        self._lists = priority_lists(queue)
        self._pop = redis.register_script(POP)
        self._rejected: deque[bytes] = deque(maxlen=MOST_HELD)
        self._bell: Connection | None = None
        self._bell_fd = -1
        self._rung_at: float | None = None
        self._retry_at = 0.0

    def open(self, deliver: Callable[[Nudge], None]) -> None:
        """Begin to read, at the hub's next turn, or go on after `pause`."""
        self._deliver = deliver
        self._hub.on_tick.add(self.tick)
        if self._bell is not None:
            self._hub.add_reader(self._bell_fd, self._guarded, self._answered)
        if self._rung_at is not None:
            # Nobody listened during a pause, so the line is not overdue for that.
            self._rung_at = monotonic()

    def pause(self) -> None:
        """Leave the hub. What the doorbell brings meanwhile waits in its connection."""
        self._deliver = None
        self._hub.on_tick.discard(self.tick)
        if self._bell is not None:
            self._hub.remove_reader(self._bell_fd)

    def close(self) -> None:
        """Stop reading, and put back what the doorbell has brought.

        What it brings in this very moment is lost, and repeated by the dispatcher.
        """
        self.pause()
        try:
            self._put_back()
        except (RedisError, OSError) as error:
            log.warning("window.not_put_back", queue=self.queue, error=str(error)[:200])
        self._hang_up()

    def tick(self) -> None:
        """Take what may start now. Called at every turn of the hub, so it must cost nothing when there is nothing."""
        now = monotonic()
        if self._deliver is None:
            return  # a timer or an errand of ours came after the end
        if self._rung_at is not None:
            if now - self._rung_at > OVERDUE_S:
                self._fail(TimeoutError(f"no answer to BRPOP for {OVERDUE_S} s"))
        elif now >= self._retry_at and (free := self._slots.free(self.queue)) > 0:
            self._guarded(lambda: self._fill(min(free, MOST_AT_ONCE)))

    def _fill(self, wanted: int) -> None:
        shown = self._pop(keys=self._lists, args=[ENTRY_BYTES, REJECTED_BYTES, wanted, MOST_BYTES])
        entries = [ListEntry(*pair) for pair in by(2, shown)]
        for entry in entries:
            self._take(entry)
        self._give_rejects()
        if len(entries) < wanted:
            self._ring()
        elif self._slots.free(self.queue) > 0:
            # More may stand there, and nothing else wakes the hub. What else it has to do has its turn first.
            self._slots.soon(self.tick)

    def _take(self, entry: ListEntry) -> None:
        match read(self.queue, entry.head, entry.size):
            case Nudge() as nudge:
                if nudge.ignored:
                    log.info("nudge.options_ignored", queue=self.queue, id=nudge.celery_id, options=nudge.ignored)
                assert self._deliver is not None
                self._deliver(nudge)
            case Rejected() as rejected:
                log.warning("nudge.rejected", queue=self.queue, reason=rejected.reason, size=entry.size)
                self._rejected.append(rejected.as_json())

    def _give_rejects(self) -> None:
        if self._rejected:
            self._redis.lpush(REJECTED, *self._rejected)
            self._rejected.clear()

    def _ring(self) -> None:
        """Ask for the next entry, and go on: the answer makes the connection readable."""
        bell = self._bell or self._call()
        bell.send_command("BRPOP", *self._lists, DOORBELL_S)  # type: ignore[no-untyped-call]
        self._rung_at = monotonic()

    def _call(self) -> Connection:
        bell = self._bell = self._redis.connection_pool.get_connection()
        self._bell_fd = bell._sock.fileno()  # type: ignore[attr-defined]  # connected by the pool
        self._hub.add_reader(self._bell_fd, self._guarded, self._answered)
        return bell

    def _answered(self) -> None:
        if self._bell is None or self._rung_at is None:
            raise ConnectionError("Redis closed the idle connection")
        answer = self._bell.read_response()
        self._rung_at = None
        if answer is not None:
            self._take(ListEntry(len(answer[1]), answer[1]))
            self._give_rejects()
        self.tick()

    def _put_back(self) -> None:
        if self._bell is None or self._rung_at is None or not self._bell.can_read(timeout=0):
            return
        if answer := self._bell.read_response():
            self._redis.rpush(*answer)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (RedisError, OSError) as error:
            self._fail(error)
        except Exception as error:
            # On the hub's thread it would end the worker. Nudges that were popped already are repeated.
            log.exception("window.failed", queue=self.queue)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.warning("window.unreadable", queue=self.queue, error=str(error)[:200], retry_s=RETRY_S)
        self._hang_up()
        if is_wrong_type(error):
            with suppress(RedisError):
                put_aside(self._redis)
        self._retry_at = monotonic() + RETRY_S
        # Later than `_retry_at`, never before it.
        self._hub.call_later(RETRY_S * 1.1, self.tick)

    def _hang_up(self) -> None:
        self._rung_at = None
        if self._bell is not None:
            self._hub.remove_reader(self._bell_fd)
            self._bell.disconnect()  # type: ignore[no-untyped-call]
            self._redis.connection_pool.release(self._bell)
            self._bell = None
