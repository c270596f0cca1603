"""Probes paused endpoints for the dispatcher: one job at a time, each time another job, until one gets an answer.

The wait between two probes grows with the pause: 5 s at first, doubling to 5 min (`jobs.core.endpoint_health.wait_s`).
"""

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import PROBE_S, SLOW_S, State
from worker.jobs.store import due, endpoints
from worker.jobs.store.due import FIRST, LanePosition
from worker.jobs.store.endpoints import EndpointRow
from worker.queue.nudges import nudge, push_first, read_window

log = structlog.get_logger()


class Probes:
    """The leader's memory of its probes. A new leader starts without it; `endpoints.send_probe` guards them in SQL."""

    def __init__(self, engine: Engine, redis: Redis, queue: str) -> None:
        self._engine, self._redis, self._queue = engine, redis, queue
        self._positions: dict[str, LanePosition] = {}
        self._sent: dict[str, bytes] = {}

    def send(self) -> float | None:
        """Send the due probes; open endpoints that were slow for SLOW_S; return the seconds to the next probe."""
        with self._engine.begin() as connection:
            seen = endpoints.read_all(connection)
            for endpoint in seen.values():
                if endpoint.state is State.slow and endpoint.since_s >= SLOW_S:
                    endpoints.open_fully(connection, endpoint.name)
        overdue = [endpoint for endpoint in seen.values() if endpoint.is_overdue]
        window = read_window(self._redis, self._queue) if overdue else set()
        sent = [self._send(endpoint, is_in_window=self._sent.get(endpoint.name) in window) for endpoint in overdue]
        waits_s = [endpoint.probe_in_s for endpoint in seen.values() if endpoint.probe_in_s is not None]
        waits_s = [wait_s for wait_s in waits_s if wait_s > 0]
        return min([*waits_s, PROBE_S] if any(sent) else waits_s, default=None)

    def _send(self, endpoint: EndpointRow, *, is_in_window: bool) -> bool:
        """Send a probe, or extend the wait if the last probe still waits for a slot; False if no job can be sent."""
        name = endpoint.name
        with self._engine.begin() as connection:
            if is_in_window:
                return endpoints.send_probe(connection, name, None, paused_s=endpoint.since_s)
            after = self._positions.get(name, FIRST)
            row, self._positions[name] = due.probe(connection, name, after=after, last=endpoint.probe_job)
            if row is None or not endpoints.send_probe(connection, name, row.row_id, paused_s=endpoint.since_s):
                return False
        entry = nudge(row.row_id, row.attempt)
        push_first(self._redis, self._queue, entry)
        self._sent[name] = entry
        return True
