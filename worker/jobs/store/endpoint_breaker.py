"""ENDPOINTS: the shared breaker. It counts the failing calls of all workers and pauses the endpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from worker.core.failure import ErrorCode
from worker.jobs.core.circuit_breaker import in_a_row
from worker.jobs.core.endpoint_health import Cause, State
from worker.jobs.store.endpoints import insert_missing, pause_until_probe
from worker.store.clock import seconds_until
from worker.store.tables import endpoints


@dataclass(frozen=True, slots=True)
class BreakerTrip:
    """The breaker of one worker asks for a pause of an endpoint, after a failure `code`."""

    endpoint: str
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class FailingCall:
    """A call that the endpoint failed, begun `began_s` ago; its worker's last answer came `quiet_s` ago (or never)."""

    endpoint: str
    job_id: str
    code: ErrorCode
    began_s: float
    quiet_s: float | None


def open_breaker(connection: Connection, trips: Sequence[BreakerTrip]) -> list[bool]:
    """Pause endpoints after too many failed calls; True if the endpoint was not paused before."""
    insert_missing(connection, {trip.endpoint: 0.0 for trip in trips})
    return [pause_until_probe(connection, trip.endpoint, Cause.breaker, trip.code) for trip in trips]


def count_in_a_row(connection: Connection, calls: Sequence[FailingCall]) -> list[bool]:
    """Count jobs that an endpoint failed since its last answer to any worker; pause it when there are too many.

    Return, per call, whether this call paused the endpoint. A call that began before the endpoint's last change does
    not count.
    """
    insert_missing(connection, {call.endpoint: call.began_s for call in sorted(calls, key=lambda call: call.began_s)})
    # Lock in the order of the names, as every worker does; return in the order of the calls.
    opened = {call: _count(connection, call) for call in sorted(calls, key=lambda call: call.endpoint)}
    return [opened[call] for call in calls]


def _count(connection: Connection, call: FailingCall) -> bool:
    its_row = endpoints.c.name == call.endpoint
    columns = select(
        endpoints.c.state,
        endpoints.c.sick_jobs,
        -seconds_until(endpoints.c.since),
        -seconds_until(endpoints.c.answered_at),
    ).where(its_row)
    state, stored, since_s, answered_s = connection.execute(columns.with_for_update()).one()
    if state == State.paused or call.began_s > since_s:
        return False
    quiet_s = min(age for age in (since_s, answered_s, call.quiet_s) if age is not None)
    before = tuple(json.loads(stored or "[]"))
    jobs, opens = in_a_row(before, call.job_id, quiet_s=quiet_s)
    if opens:
        return pause_until_probe(connection, call.endpoint, Cause.breaker, call.code)
    if jobs != before:
        connection.execute(update(endpoints).where(its_row).values(sick_jobs=json.dumps(jobs)))
    return False
