"""ENDPOINTS: calls that fail by an endpoint's weakness, as all workers together see them; its breaker opens here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from worker.core.failure import ErrorCode
from worker.jobs.core.circuit_breaker import in_a_row
from worker.jobs.core.endpoint_health import Cause, State
from worker.jobs.store.endpoints import enter, pause_until_probe
from worker.store.clock import seconds_until
from worker.store.tables import endpoints


@dataclass(frozen=True, slots=True)
class BreakerTrip:
    """The breaker of one worker wants an endpoint to rest, after a failure `code`."""

    endpoint: str
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class FailingCall:
    """A call that failed by the endpoint's weakness, begun `began_s` ago; `quiet_s`: how long its worker had no answer.

    `quiet_s` is None where that worker never had one.
    """

    endpoint: str
    job_id: str
    code: ErrorCode
    began_s: float
    quiet_s: float | None


def open_breaker(connection: Connection, wishes: Sequence[BreakerTrip]) -> list[bool]:
    """Pause endpoints whose calls fail too often; True where it was not resting yet."""
    enter(connection, {wish.endpoint: 0.0 for wish in wishes})
    return [pause_until_probe(connection, wish.endpoint, Cause.breaker, wish.code) for wish in wishes]


def count_in_a_row(connection: Connection, sick: Sequence[FailingCall]) -> list[bool]:
    """Count jobs that an endpoint failed since it last answered anybody; pause it when there are too many.

    True for the one that paused it. What was in flight when the endpoint last changed does not count.
    """
    enter(connection, {one.endpoint: one.began_s for one in sorted(sick, key=lambda one: one.began_s)})
    # In the order of the names, as everybody locks them; the answers in the order of the calls.
    opened = {one: _count(connection, one) for one in sorted(sick, key=lambda one: one.endpoint)}
    return [opened[one] for one in sick]


def _count(connection: Connection, one: FailingCall) -> bool:
    its_row = endpoints.c.name == one.endpoint
    stands = select(
        endpoints.c.state,
        endpoints.c.sick_jobs,
        -seconds_until(endpoints.c.since),
        -seconds_until(endpoints.c.answered_at),
    ).where(its_row)
    state, kept, since_s, answered_s = connection.execute(stands.with_for_update()).one()
    if state == State.paused or one.began_s > since_s:
        return False
    quiet_s = min(age for age in (since_s, answered_s, one.quiet_s) if age is not None)
    before = tuple(json.loads(kept or "[]"))
    jobs, opens = in_a_row(before, one.job_id, quiet_s=quiet_s)
    if opens:
        return pause_until_probe(connection, one.endpoint, Cause.breaker, one.code)
    if jobs != before:
        connection.execute(update(endpoints).where(its_row).values(sick_jobs=json.dumps(jobs)))
    return False
