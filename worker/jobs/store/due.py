"""DISPATCH: finds due jobs lane by lane, and ends overdue jobs. A lane is an (endpoint, tenant) pair.

Statements are short and built once, because building and planning them is most of a lane's cost.
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
from worker.store.clock import from_now, now, present, seconds_until
from worker.store.tables import endpoints, jobs, leaders
from worker.store.transitions import DueRow, error_columns
from worker.store.types import Instant

EXPIRY_BATCH = 500
# A job this close to its deadline comes before the other jobs of its lane.
URGENT_S = 60.0
URGENT_A_TICK = 500
# A range is one lane at one priority; it costs two short statements of half a millisecond each.
RANGES_A_TICK = 500
# The most ranges that one search for a probe reads; the next tick continues the search.
RANGES_A_PROBE = 20


class JobLane(NamedTuple):
    """An (endpoint, tenant) pair with queued rows, and the priorities of these rows, best first."""

    endpoint: str
    tenant: str
    priorities: tuple[int, ...]


LanePosition = tuple[str, str, int]
"""A position in the index: (endpoint, tenant, priority)."""
FIRST: LanePosition = ("", "", -1)
"""The position before all lanes."""


def _queued(*columns: Any) -> Select[Any]:
    # A literal, because the planner could not use the partial index with a bound parameter.
    return select(*columns).where(jobs.c.status == literal_column("'queued'"))


_ENDPOINT, _TENANT = bindparam("endpoint", type_=String), bindparam("tenant", type_=String)
_PRIORITY, _ROWS = bindparam("priority", type_=Integer), bindparam("rows", type_=Integer)
_POSITION = (jobs.c.endpoint, jobs.c.tenant, jobs.c.priority)
# The key has the index's last column too, at its largest value: SQLite would scan all rows equal to a shorter key.
_END_OF_RANGE = tuple_(_ENDPOINT, _TENANT, _PRIORITY, literal(datetime.max.replace(tzinfo=UTC), Instant()))
_NEXT_RANGE = _queued(*_POSITION).where(tuple_(*_POSITION, jobs.c.run_at) > _END_OF_RANGE).order_by(*_POSITION).limit(1)
_NEXT_ENDPOINT = _queued(*_POSITION).where(jobs.c.endpoint > _ENDPOINT).order_by(*_POSITION).limit(1)
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
_URGENT = (
    _queued(jobs.c.endpoint, jobs.c.tenant, jobs.c.id, jobs.c.attempt + 1, -seconds_until(jobs.c.run_at))
    # The index's condition, as below.
    .where(
        text("status IN ('queued', 'in_progress')"),
        jobs.c.deadline <= select(from_now(URGENT_S)).scalar_subquery(),
        jobs.c.run_at <= present(),
        jobs.c.endpoint.not_in(bindparam("skipped", expanding=True)),
    )
    .order_by(jobs.c.deadline)
    .limit(_ROWS)
)
_OVERDUE = (
    _queued(jobs.c.id, jobs.c.attempt)
    # The index's condition, word for word: SQLite does not derive it from `status = 'queued'`.
    .where(text("status IN ('queued', 'in_progress')"), jobs.c.deadline <= present())
    .order_by(jobs.c.deadline)
    .limit(_ROWS)
    .with_for_update(skip_locked=True)
)


def lanes(
    connection: Connection, *, after: LanePosition = FIRST, limit: int = RANGES_A_TICK, skipped: Collection[str] = ()
) -> tuple[list[JobLane], LanePosition]:
    """Return the lanes with queued rows, once round from `after`, and the position to continue from.

    At most `limit` ranges, none of the endpoints in `skipped`. Each range costs one step over the index, however many
    rows it holds. Neither database does such a skip scan on every version we support (PostgreSQL does from 18 on).
    """
    positions = list(_walk(connection, after, limit, skipped))
    if after != FIRST and len(positions) < limit:
        # Stop at the first known position; a comparison with `after` would use Python's order, not the database's.
        known = set(positions)
        again = _walk(connection, FIRST, limit - len(positions), skipped)
        positions += takewhile(lambda position: position not in known, again)
    priorities_of: dict[tuple[str, str], list[int]] = {}
    for endpoint, tenant, priority in positions:
        priorities_of.setdefault((endpoint, tenant), []).append(priority)
    resume_at = positions[-1] if len(positions) == limit else FIRST
    return [JobLane(*pair, tuple(sorted(priorities))) for pair, priorities in priorities_of.items()], resume_at


def due(connection: Connection, lane: JobLane, *, limit: int) -> list[DueRow]:
    """Return the best due rows of one lane: by priority, then by age.

    It reads one index range per priority, up to the present. Rows that are due later are never read.
    """
    best: list[DueRow] = []
    for priority in lane.priorities:
        if len(best) == limit:
            break
        values = {"endpoint": lane.endpoint, "tenant": lane.tenant, "priority": priority, "rows": limit - len(best)}
        best += [DueRow(*row) for row in connection.execute(_DUE, values)]
    return best


def urgent(connection: Connection, *, skipped: Collection[str] = ()) -> list[tuple[str, str, DueRow]]:
    """Return the endpoint, tenant and row of due jobs with a deadline within URGENT_S, nearest first.

    None of the endpoints in `skipped`. The priority of each is the best: they come first among the jobs of their
    tenant.
    """
    rows = connection.execute(_URGENT, {"rows": URGENT_A_TICK, "skipped": sorted(skipped)})
    return [(row[0], row[1], DueRow(row[2], row[3], 0, row[4])) for row in rows]


def next_start_s(connection: Connection) -> float | None:
    """Return the seconds until the next row of any lane becomes due, or None if no row waits."""
    return connection.execute(_NEXT_START).scalar()


def oldest_overdue_job_s(connection: Connection) -> float | None:
    """Return for how many seconds the oldest due job has been due, paused endpoints left out; None if no job is due."""
    paused = connection.scalars(select(endpoints.c.name).where(endpoints.c.state == State.paused)).all()
    found, _ = lanes(connection, skipped=paused)
    ages_s = [
        row.age_s
        for lane in found
        for priority in lane.priorities
        for row in due(connection, lane._replace(priorities=(priority,)), limit=1)
    ]
    return max(ages_s, default=None)


def probe(
    connection: Connection, endpoint: str, *, after: LanePosition, last: str | None
) -> tuple[DueRow | None, LanePosition]:
    """Return a due row of an endpoint and its position: the oldest row of the next lane behind `after`.

    The job `last` is skipped if there is another: a job that fails for its own reasons must not hold the others for
    ever.
    """
    seen: list[LanePosition] = []
    last_row: DueRow | None = None
    position = after if after[0] == endpoint else (endpoint, "", -1)
    for _ in range(RANGES_A_PROBE):
        found = _next_range(connection, position)
        if found is None or found[0] != endpoint:
            found = _next_range(connection, (endpoint, "", -1))
        if found is None or found[0] != endpoint or found in seen:
            return last_row, position
        seen.append(position := found)
        values = dict(zip(("endpoint", "tenant", "priority"), position, strict=True)) | {"rows": 2}
        for row in (DueRow(*row) for row in connection.execute(_DUE, values)):
            if row.row_id != last:
                return row, position
            last_row = row
    return None, position


def expire(connection: Connection, *, limit: int = EXPIRY_BATCH) -> set[str]:
    """End queued jobs after their deadline; return their ids. The worker that holds a running job ends it."""
    keys = [(row.id, row.attempt) for row in connection.execute(_OVERDUE, {"rows": limit})]
    moved = transitions.apply(connection, EXPIRE_QUEUED, keys, changes=error_columns(ErrorCode.expired))
    ended = {job_id for job_id, _ in moved}
    finished_feed.append_to_feed(connection, ended)
    return ended


def step_down(connection: Connection, worker_id: str, *, name: str) -> None:
    """Give up the leadership `name` if this worker holds it; another worker can then take it at once."""
    held = (leaders.c.name == name, leaders.c.worker_id == worker_id)
    connection.execute(update(leaders).where(*held).values(lease_until=now()))


def _walk(connection: Connection, after: LanePosition, limit: int, skipped: Collection[str]) -> Iterator[LanePosition]:
    position = _next_range(connection, after)
    while position is not None and limit:
        if position[0] in skipped:
            # One step passes all lanes of the endpoint.
            position = _position(connection.execute(_NEXT_ENDPOINT, {"endpoint": position[0]}).first())
            continue
        yield position
        limit -= 1
        position = _next_range(connection, position) if limit else None


def _next_range(connection: Connection, after: LanePosition) -> LanePosition | None:
    values = dict(zip(("endpoint", "tenant", "priority"), after, strict=True))
    return _position(connection.execute(_NEXT_RANGE, values).first())


def _position(row: Row[Any] | None) -> LanePosition | None:
    return None if row is None else (row.endpoint, row.tenant, row.priority)
