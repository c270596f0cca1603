"""Push direct nudges, for rows that may start at once, from a separate thread: no caller waits for Redis.

Nudges that cannot be pushed while Redis is away are dropped; the dispatcher finds their rows in SQL.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

import structlog
from redis import Redis, RedisError

from worker.queue.nudges import push_nudges

log = structlog.get_logger()

# With more waiting nudges the oldest are dropped: the dispatcher sorts a backlog by priority.
MOST_AT_ONCE = 500
# The longest wait of an idle thread.
WAIT_S = 5.0


class Pusher:
    """Pushes nudges to the lists of one queue while the lists hold fewer than `room` entries."""

    def __init__(self, redis: Redis, queue: str, *, room: int, turned: Callable[[], None] = lambda: None) -> None:
        self._redis, self._queue, self.room, self._turned = redis, queue, room, turned
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=MOST_AT_ONCE)
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"afterword-announce-{queue}", daemon=True)

    def start(self) -> None:
        self._turned()
        self._thread.start()

    def stop(self) -> None:
        """Push the waiting nudges, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def put(self, nudges: Iterable[tuple[int, bytes]]) -> None:
        """Queue (priority, entry) pairs from any thread."""
        with self._changed:
            self._waiting.extend(nudges)
            self._changed.notify()

    def _run(self) -> None:
        while nudges := self._take():
            try:
                push_nudges(self._redis, self._queue, nudges, room=self.room)
            except RedisError as error:
                log.warning("nudge.postponed", queue=self._queue, error=type(error).__name__, rows=len(nudges))
            except Exception:
                log.exception("nudge.failed", queue=self._queue, rows=len(nudges))

    def _take(self) -> list[tuple[int, bytes]]:
        with self._changed:
            self._turned()
            while not self._waiting and not self._stopping:
                self._changed.wait(WAIT_S)
                self._turned()
            taken = list(self._waiting)
            self._waiting.clear()
            return taken
