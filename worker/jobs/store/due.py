"""DISPATCH: which rows are due, lane by lane, and which are over. A lane is an (endpoint, tenant) pair.

Statements are built once and are short: composing and planning them is most of what a lane costs.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    literal,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from worker.core.failure import ErrorCode
from worker.core.lifecycle import EXPIRE_QUEUED
from worker.jobs.core.endpoint_health import State
from worker.jobs.store import finished_feed
from worker.store import transitions
from worker.store.clock import now, present, seconds_until
from worker.store.tables import endpoints, jobs, leaders
from worker.store.transitions import Due, error_columns
from worker.store.types import Instant

EXPIRY_BATCH = 500
# Of one lane and priority each: two short statements, half a millisecond apiece.
RANGES_A_TICK = 500
# That a probe is looked for in, before the next tick looks on.
RANGES_A_PROBE = 20


class JobLane(NamedTuple):
    """An (endpoint, tenant) pair that has queued rows, and their priorities, best first."""

    endpoint: str
    tenant: str
    priorities: tuple[int, ...]


Place = tuple[str, str, int]
FIRST: Place = ("", "", -1)


def _queued(*columns: Any) -> Select[Any]:
    # A literal: with a bound parameter the planner could not use the partial index.
    return select(*columns).where(jobs.c.status == literal_column("'queued'"))


_ENDPOINT, _TENANT = bindparam("endpoint", type_=String), bindparam("tenant", type_=String)
_PRIORITY, _ROWS = bindparam("priority", type_=Integer), bindparam("rows", type_=Integer)
_PLACE = (jobs.c.endpoint, jobs.c.tenant, jobs.c.priority)
# With the last column of the index too, behind all its values: SQLite looks through what is equal to a shorter key.
_BEHIND = tuple_(_ENDPOINT, _TENANT, _PRIORITY, literal(datetime.max.replace(tzinfo=UTC), Instant()))
_NEXT_PLACE = _queued(*_PLACE).where(tuple_(*_PLACE, jobs.c.run_at) > _BEHIND).order_by(*_PLACE).limit(1)
_NEXT_ENDPOINT = _queued(*_PLACE).where(jobs.c.endpoint > _ENDPOINT).order_by(*_PLACE).limit(1)
_DUE = (
    _queued(jobs.c.id, jobs.c.attempt + 1, jobs.c.priority, -seconds_until(jobs.c.run_at))
    .where(
        jobs.c.endpoint == _ENDPOINT,
        jobs.c.tenant == _TENANT,
        jobs.c.priority == _PRIORITY,
        jobs.c.run_at <= present(),
    )
    .order_by(jobs.c.run_at)
    .limit(_ROWS)
)
_NEXT_START = _queued(seconds_until(jobs.c.run_at)).where(jobs.c.run_at > present()).order_by(jobs.c.run_at).limit(1)
_OVER = (
    _queued(jobs.c.id, jobs.c.attempt)
    # The condition of the index, word for word: SQLite does not see that it follows from the other one.
    .where(text("status IN ('queued', 'in_progress')"), jobs.c.deadline <= present())
    .order_by(jobs.c.deadline)
    .limit(_ROWS)
    .with_for_update(skip_locked=True)
)


def lanes(
    connection: Connection, *, after: Place = FIRST, limit: int = RANGES_A_TICK, skipped: Collection[str] = ()
) -> tuple[list[JobLane], Place]:
    """Return the lanes that have queued rows, from `after` round to it again, and where the next round goes on.

    At most `limit` priorities of lanes, none of the endpoints `skipped`. A walk from one to the next over the index,
    one step each, however many rows each holds: neither database skips duplicates by itself on every version we support
    (PostgreSQL from 18 on).
    """
    places = list(_walk(connection, after, limit, skipped))
    if after != FIRST and len(places) < limit:
        # Up to a place that was seen: the order is the database's, which is not Python's.
        known = set(places)
        again = _walk(connection, FIRST, limit - len(places), skipped)
        places += takewhile(lambda place: place not in known, again)
    found: dict[tuple[str, str], list[int]] = {}
    for endpoint, tenant, priority in places:
        found.setdefault((endpoint, tenant), []).append(priority)
    on = places[-1] if len(places) == limit else FIRST
    return [JobLane(*pair, tuple(sorted(priorities))) for pair, priorities in found.items()], on


def _walk(connection: Connection, place: Place, limit: int, skipped: Collection[str]) -> Iterator[Place]:
    found = _next_place(connection, place)
    while found is not None and limit:
        if found[0] in skipped:
            # Behind all its lanes in one step.
            found = _place(connection.execute(_NEXT_ENDPOINT, {"endpoint": found[0]}).first())
            continue
        yield found
        limit -= 1
        found = _next_place(connection, found) if limit else None


def _next_place(connection: Connection, place: Place) -> Place | None:
    return _place(
        connection.execute(_NEXT_PLACE, dict(zip(("endpoint", "tenant", "priority"), place, strict=True))).first()
    )


def _place(row: Row[Any] | None) -> Place | None:
    return None if row is None else (row.endpoint, row.tenant, row.priority)


def probe(connection: Connection, endpoint: str, *, after: Place, last: str | None) -> tuple[Due | None, Place]:
    """Return a due row of an endpoint, and its place: of the lanes behind `after` in turn, in each the oldest.

    Rather any other than the job `last`: one that alone provokes what it meets must not hold the others for ever.
    """
    seen: list[Place] = []
    same: Due | None = None
    place = after if after[0] == endpoint else (endpoint, "", -1)
    for _ in range(RANGES_A_PROBE):
        found = _next_place(connection, place)
        if found is None or found[0] != endpoint:
            found = _next_place(connection, (endpoint, "", -1))
        if found is None or found[0] != endpoint or found in seen:
            return same, place
        seen.append(place := found)
        values = dict(zip(("endpoint", "tenant", "priority"), place, strict=True)) | {"rows": 2}
        for row in (Due(*row) for row in connection.execute(_DUE, values)):
            if row.row_id != last:
                return row, place
            same = row
    return None, place


def due(connection: Connection, lane: JobLane, *, limit: int) -> list[Due]:
    """Return the best due rows of one lane: by priority, then by age.

    One index range a priority, each ending at the present: rows that wait for later are never read.
    """
    best: list[Due] = []
    for priority in lane.priorities:
        if len(best) == limit:
            break
        values = {"endpoint": lane.endpoint, "tenant": lane.tenant, "priority": priority, "rows": limit - len(best)}
        best += [Due(*row) for row in connection.execute(_DUE, values)]
    return best


def next_start_s(connection: Connection) -> float | None:
    """Return the seconds until the next row of any lane becomes due, or None when none waits."""
    return connection.execute(_NEXT_START).scalar()


def expire(connection: Connection, *, limit: int = EXPIRY_BATCH) -> set[str]:
    """End queued jobs that passed their deadline; return their ids. Running ones are ended by their holder."""
    keys = [(row.id, row.attempt) for row in connection.execute(_OVER, {"rows": limit})]
    moved = transitions.apply(connection, EXPIRE_QUEUED, keys, changes=error_columns(ErrorCode.expired))
    ended = {job_id for job_id, _ in moved}
    finished_feed.append_to_feed(connection, ended)
    return ended


def step_down(connection: Connection, worker_id: str, *, name: str) -> None:
    """Give the leadership `name` up, if it is this worker's, so that another takes it at once."""
    mine = (leaders.c.name == name, leaders.c.worker_id == worker_id)
    connection.execute(update(leaders).where(*mine).values(lease_until=now()))


def oldest_overdue_job_s(connection: Connection) -> float | None:
    """Return for how long the oldest due job could have run, of endpoints that do not rest; None: none is due."""
    paused = connection.scalars(select(endpoints.c.name).where(endpoints.c.state == State.paused)).all()
    found, _ = lanes(connection, skipped=paused)
    ages = [
        row.age_s
        for lane in found
        for priority in lane.priorities
        for row in due(connection, lane._replace(priorities=(priority,)), limit=1)
    ]
    return max(ages, default=None)
