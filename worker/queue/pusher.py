"""Direct nudges: rows that may start at once go to Redis in a thread of their own, so that nobody waits for Redis.

What is announced while Redis is away is forgotten: the dispatcher finds the rows.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

import structlog
from redis import Redis, RedisError

from worker.queue.nudges import push_nudges

log = structlog.get_logger()

# More than this is the dispatcher's to sort by priority.
MOST_AT_ONCE = 500
# Between two turns with nothing to do.
WAIT_S = 5.0


class Pusher:
    """Pushes what it is given to the lists of one queue, as far as `room` allows."""

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
        """Push what waits, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def put(self, nudges: Iterable[tuple[int, bytes]]) -> None:
        """Announce (priority, entry) pairs; from any thread."""
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
