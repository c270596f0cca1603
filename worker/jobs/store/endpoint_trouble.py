"""ENDPOINTS: the troubles that the jobs of all workers meet; `jobs.core.endpoint_health` decides on their owners.

Ages become instants of the database's clock here, under the lock of the endpoint's row.
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
from worker.jobs.store.endpoints import insert_missing, pause_until_probe, start_sooner
from worker.store.clock import from_now, seconds_until
from worker.store.tables import attempts, endpoints


@dataclass(frozen=True, slots=True)
class Trouble:
    """An attempt that met trouble. Its call began `began_s` ago, its worker's latest answered call `answered_s` ago."""

    endpoint: str
    job_id: str
    attempt: int
    code: ErrorCode
    began_s: float
    answered_s: float | None


def note_troubles(connection: Connection, troubles: Sequence[Trouble]) -> list[Verdict]:
    """Classify each trouble in turn; pause an endpoint where two different jobs met trouble."""
    insert_missing(
        connection, {each.endpoint: each.began_s for each in sorted(troubles, key=lambda each: each.began_s)}
    )
    before = _lock_records(connection, {each.endpoint for each in troubles})
    stubborn = _stubborn_ages(connection, troubles)
    records, verdicts, reasons = dict(before), [], dict[str, ErrorCode]()
    for each in troubles:
        call = TroubledCall(each.job_id, each.began_s, each.answered_s, stubborn.get((each.job_id, each.attempt)))
        was_paused = records[each.endpoint].state is State.paused
        owner, records[each.endpoint] = endpoint_health.classify(records[each.endpoint], call)
        paused = records[each.endpoint].state is State.paused and not was_paused
        verdicts.append(Verdict(owner, hold_s(records[each.endpoint]), paused))
        if paused:
            reasons[each.endpoint] = each.code
    for name in sorted(records):
        if name in reasons:
            pause_until_probe(connection, name, Cause.trouble, reasons[name])
        elif records[name] != before[name]:
            _write_suspect(connection, name, before[name], records[name])
    return verdicts


def _write_suspect(connection: Connection, name: str, before: EndpointRecord, after: EndpointRecord) -> None:
    """Write the new suspect, and let the earlier suspect start as soon as the other jobs."""
    troubled_s = after.suspect_s if after.troubled_s is None else after.troubled_s
    suspicion = {
        "suspect_job": after.suspect_job,
        "suspect_at": from_now(-after.suspect_s),
        "troubled_at": from_now(-troubled_s),
    }
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(suspicion))
    if before.suspect_job not in (None, after.suspect_job):
        start_sooner(connection, [str(before.suspect_job)], within_s=HOLD_S)


def _lock_records(connection: Connection, names: set[str]) -> dict[str, EndpointRecord]:
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
    return {row[0]: _record(*row[1:]) for row in rows}


def _record(
    state: str, since_s: float, answered_s: float | None, suspect: str | None, suspect_s: float | None, troubled_s: Any
) -> EndpointRecord:
    # An earlier release changes the state of an endpoint without clearing `troubled_at`.
    lasts = troubled_s is not None and troubled_s <= since_s
    return EndpointRecord(State(state), since_s, answered_s, suspect, suspect_s or 0.0, troubled_s if lasts else None)


def _stubborn_ages(connection: Connection, troubles: Sequence[Trouble]) -> dict[tuple[str, int], float]:
    """Return the age of the previous attempt's end, by attempt, if the previous few attempts all met trouble."""
    earlier = {
        (each.job_id, each.attempt - back): (each.job_id, each.attempt)
        for each in troubles
        for back in range(1, STUBBORN_ATTEMPTS + 1)
        if each.attempt > STUBBORN_ATTEMPTS
    }
    if not earlier:
        return {}
    columns = select(attempts.c.job_id, attempts.c.attempt, -seconds_until(attempts.c.finished_at).label("ended_s"))
    rows = connection.execute(
        columns.where(
            tuple_(attempts.c.job_id, attempts.c.attempt).in_(sorted(earlier)),
            # By the error code if an earlier release wrote the row: it left the column `trouble` empty.
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
