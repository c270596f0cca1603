"""ENDPOINTS: trouble that jobs meet, as all workers together see it; `jobs.core.endpoint_health` decides whose it is.

Here its ages become instants of the database's clock, under the lock of the endpoint's row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select, tuple_, update

from worker.core.failure import ErrorCode
from worker.jobs.core import endpoint_health
from worker.jobs.core.endpoint_health import (
    HOLD_S,
    STUBBORN_ATTEMPTS,
    Cause,
    EndpointRecord,
    State,
    TroubledCall,
    Verdict,
    hold_s,
)
from worker.jobs.store.endpoints import enter, free, pause_until_probe
from worker.store.clock import from_now, seconds_until
from worker.store.tables import attempts, endpoints


@dataclass(frozen=True, slots=True)
class Trouble:
    """An attempt that met trouble: its call began `began_s` ago, its worker's latest answer `answered_s` ago."""

    endpoint: str
    job_id: str
    attempt: int
    code: ErrorCode
    began_s: float
    answered_s: float | None


def judge(connection: Connection, troubles: Sequence[Trouble]) -> list[Verdict]:
    """Decide on each trouble in turn, and pause the endpoints that two different jobs met it at."""
    enter(connection, {one.endpoint: one.began_s for one in sorted(troubles, key=lambda one: one.began_s)})
    before = _stands(connection, {one.endpoint for one in troubles})
    stubborn = _stubborn(connection, troubles)
    stands, verdicts, reasons = dict(before), [], dict[str, ErrorCode]()
    for one in troubles:
        met = TroubledCall(one.job_id, one.began_s, one.answered_s, stubborn.get((one.job_id, one.attempt)))
        stood = stands[one.endpoint]
        blame, stands[one.endpoint] = endpoint_health.classify(stood, met)
        paused = stands[one.endpoint].state is State.paused and stood.state is not State.paused
        verdicts.append(Verdict(blame, hold_s(stands[one.endpoint]), paused))
        if paused:
            reasons[one.endpoint] = one.code
    for name in sorted(stands):
        if name in reasons:
            pause_until_probe(connection, name, Cause.trouble, reasons[name])
        elif stands[name] != before[name]:
            _suspect(connection, name, before[name], stands[name])
    return verdicts


def _suspect(connection: Connection, name: str, before: EndpointRecord, stand: EndpointRecord) -> None:
    """Write who is suspected now, and let the suspect before start as soon as others do."""
    troubled_s = stand.suspect_s if stand.troubled_s is None else stand.troubled_s
    suspicion = {
        "suspect_job": stand.suspect_job,
        "suspect_at": from_now(-stand.suspect_s),
        "troubled_at": from_now(-troubled_s),
    }
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(suspicion))
    if before.suspect_job not in (None, stand.suspect_job):
        free(connection, [str(before.suspect_job)], within_s=HOLD_S)


def _stands(connection: Connection, names: set[str]) -> dict[str, EndpointRecord]:
    columns = select(
        endpoints.c.name,
        endpoints.c.state,
        -seconds_until(endpoints.c.since),
        -seconds_until(endpoints.c.alive_at),
        endpoints.c.suspect_job,
        -seconds_until(endpoints.c.suspect_at),
        -seconds_until(endpoints.c.troubled_at),
    )
    # In the order of the names: two workers that lock the same rows lock them in the same order.
    rows = connection.execute(columns.where(endpoints.c.name.in_(sorted(names))).order_by("name").with_for_update())
    return {row[0]: _stand(*row[1:]) for row in rows}


def _stand(
    state: str, since_s: float, answered_s: float | None, suspect: str | None, suspect_s: float | None, troubled_s: Any
) -> EndpointRecord:
    # A release before changes an endpoint's state and leaves `troubled_at` as it was.
    lasts = troubled_s is not None and troubled_s <= since_s
    return EndpointRecord(State(state), since_s, answered_s, suspect, suspect_s or 0.0, troubled_s if lasts else None)


def _stubborn(connection: Connection, troubles: Sequence[Trouble]) -> dict[tuple[str, int], float]:
    """Return for how long those attempts' predecessors have ended whose last few all met trouble."""
    earlier = {
        (one.job_id, one.attempt - back): (one.job_id, one.attempt)
        for one in troubles
        for back in range(1, STUBBORN_ATTEMPTS + 1)
        if one.attempt > STUBBORN_ATTEMPTS
    }
    if not earlier:
        return {}
    columns = select(attempts.c.job_id, attempts.c.attempt, -seconds_until(attempts.c.finished_at).label("ended_s"))
    rows = connection.execute(
        columns.where(
            tuple_(attempts.c.job_id, attempts.c.attempt).in_(sorted(earlier)),
            # By its code where a release before wrote the row: that knows no trouble inside an answer.
            or_(
                attempts.c.trouble == "endpoint",
                and_(attempts.c.trouble.is_(None), attempts.c.error_code.in_(sorted(endpoint_health.TROUBLE))),
            ),
        )
    )
    ended: dict[tuple[str, int], list[float]] = {}
    for job_id, attempt, ended_s in rows:
        ended.setdefault(earlier[job_id, attempt], []).append(ended_s)
    return {key: min(ages) for key, ages in ended.items() if len(ages) == STUBBORN_ATTEMPTS}
