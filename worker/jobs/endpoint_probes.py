"""The dispatcher's part for endpoints that rest: one probe at a time, each of another job, until one is answered.

The waits between them grow with the pause: 5 s at first, doubling to 5 min (`jobs.core.endpoint_health.wait_s`).
"""

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import PROBE_S, SLOW_S, State
from worker.jobs.store import due, endpoints
from worker.jobs.store.due import FIRST, Place
from worker.jobs.store.endpoints import EndpointRow
from worker.queue.nudges import nudge, push_first, read_window

log = structlog.get_logger()


class Probes:
    """What the leader remembers of its probes. Another leader begins anew: no job is probed by two of them at once."""

    def __init__(self, engine: Engine, redis: Redis, queue: str) -> None:
        self._engine, self._redis, self._queue = engine, redis, queue
        self._places: dict[str, Place] = {}
        self._sent: dict[str, bytes] = {}

    def send(self) -> float | None:
        """Send the probes that are due, and open what has been slow for long enough; return seconds to the next."""
        with self._engine.begin() as connection:
            seen = endpoints.read_all(connection)
            for one in seen.values():
                if one.state is State.slow and one.since_s >= SLOW_S:
                    endpoints.open_fully(connection, one.name)
        overdue = [one for one in seen.values() if one.is_overdue]
        standing = read_window(self._redis, self._queue) if overdue else set()
        sent = [self._send(one, is_standing=self._sent.get(one.name) in standing) for one in overdue]
        waits = [one.probe_in_s for one in seen.values() if one.probe_in_s is not None and one.probe_in_s > 0]
        return min([*waits, PROBE_S] if any(sent) else waits, default=None)

    def _send(self, one: EndpointRow, *, is_standing: bool) -> bool:
        """Send a probe; False where there is no job for it. One that still waits for a slot is not followed yet."""
        with self._engine.begin() as connection:
            if is_standing:
                return endpoints.send_probe(connection, one.name, None, rested_s=one.since_s)
            after = self._places.get(one.name, FIRST)
            row, self._places[one.name] = due.probe(connection, one.name, after=after, last=one.probe_job)
            if row is None or not endpoints.send_probe(connection, one.name, row.row_id, rested_s=one.since_s):
                return False
        entry = nudge(row.row_id, row.attempt)
        push_first(self._redis, self._queue, entry)
        self._sent[one.name] = entry
        return True
