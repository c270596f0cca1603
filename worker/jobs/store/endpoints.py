"""ENDPOINTS: which of them rest, and why. One small row each, written when trouble comes or goes, read by every claim.

`jobs.core.endpoint_health` decides; here its ages become instants of the database's clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, false, func, null, select, update

from worker.core.failure import ErrorCode
from worker.core.lifecycle import Status
from worker.jobs.core.endpoint_health import HOLD_S, PROBE_S, SLOW_S, Cause, State, wait_s
from worker.store.bulk_params import upsert
from worker.store.clock import from_now, now, seconds_until
from worker.store.tables import endpoints, jobs
from worker.store.transitions import hide_from_planner

_UNSUSPECTED = {"suspect_job": None, "suspect_at": None, "troubled_at": None}
_CLEARED = {**_UNSUSPECTED, "sick_jobs": None}
# Who resumes by itself; an operator's pause waits for the operator.
_PROBED = (endpoints.c.state == State.paused, endpoints.c.cause.in_([Cause.trouble, Cause.breaker]))
# A call that began later than the suspect's was answered.
_IS_CLEARED = and_(endpoints.c.suspect_job.is_not(None), endpoints.c.suspect_at < endpoints.c.alive_at)
_LOOK = select(
    endpoints.c.name,
    endpoints.c.state,
    endpoints.c.cause,
    endpoints.c.reason,
    -seconds_until(endpoints.c.since),
    seconds_until(endpoints.c.probe_at),
    endpoints.c.probe_job,
    func.coalesce(_IS_CLEARED, false()),
).order_by(endpoints.c.name)


class EndpointRow(NamedTuple):
    """An endpoint's row. `since_s`: for how long it has been so; `probe_in_s`: negative once a probe is overdue.

    `is_cleared`: a job was suspected, and another has been answered since.
    """

    name: str
    state: State
    cause: Cause | None
    reason: str | None
    since_s: float
    probe_in_s: float | None
    probe_job: str | None
    is_cleared: bool

    @property
    def is_overdue(self) -> bool:
        """Whether a probe should go now."""
        probed = self.cause in (Cause.trouble, Cause.breaker)
        return probed and self.probe_in_s is not None and self.probe_in_s <= 0


class Answered(NamedTuple):
    """A worker's answers: the latest call that was answered began `began_s` ago, the last answer came `came_s` ago."""

    began_s: float
    came_s: float


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """A probe that was answered; its call began `began_s` ago."""

    endpoint: str
    began_s: float


def look(connection: Connection) -> dict[str, EndpointRow]:
    """Return all endpoints that have a row, by name; the others are open."""
    rows = [EndpointRow(row[0], State(row[1]), row[2] and Cause(row[2]), *row[3:]) for row in connection.execute(_LOOK)]
    return {row.name: row for row in rows}


def free(connection: Connection, job_ids: Sequence[str], *, within_s: float) -> int:
    """Let jobs that wait for their endpoint start in `within_s` at the latest; return how many waited longer.

    Rows that another transaction has locked are moving already. To wait for them could deadlock: it may want the row of
    an endpoint that we have locked.
    """
    if not job_ids:
        return 0
    waiting = (
        select(jobs.c.id)
        .where(
            jobs.c.id.in_(sorted(job_ids)),
            hide_from_planner(jobs.c.status) == Status.queued,
            jobs.c.waiting_for == "endpoint_paused",
            jobs.c.run_at > from_now(within_s),
        )
        .with_for_update(skip_locked=True)
    )
    return connection.execute(update(jobs).where(jobs.c.id.in_(waiting)).values(run_at=from_now(within_s))).rowcount


def clear_suspects(connection: Connection, names: Sequence[str]) -> int:
    """Drop the suspicion at endpoints that answered others since; return how many of the suspects start sooner."""
    rows = _suspects(connection, endpoints.c.name.in_(sorted(names)), _IS_CLEARED)
    if not rows:
        return 0
    connection.execute(update(endpoints).where(endpoints.c.name.in_(sorted(rows))).values(_UNSUSPECTED))
    return free(connection, list(rows.values()), within_s=HOLD_S)


def try_soon(connection: Connection, names: Sequence[str]) -> None:
    """Move the next probe of paused endpoints to now, and the next try of a job that is held alone.

    For a worker that starts: its configuration may be what mends the trouble.
    """
    ours = endpoints.c.name.in_(sorted(names))
    waiting = select(endpoints.c.name).where(ours, *_PROBED, endpoints.c.probe_at > now())
    if found := list(connection.scalars(waiting.order_by("name").with_for_update())):
        connection.execute(update(endpoints).where(endpoints.c.name.in_(found)).values(probe_at=now()))
    free(connection, list(_suspects(connection, ours).values()), within_s=0.0)


def _suspects(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, str]:
    """Return the jobs that are suspected, by endpoint, and lock these endpoints in the order of their names."""
    suspected = select(endpoints.c.name, endpoints.c.suspect_job).where(endpoints.c.suspect_job.is_not(None))
    return dict(connection.execute(suspected.where(*conditions).order_by("name").with_for_update()).all())


def passed(connection: Connection, probes: Sequence[ProbeSucceeded]) -> list[float | None]:
    """Let endpoints start again, slowly, whose probe was answered; return how long each rested, None where it does not.

    A probe of an earlier pause, answered late, ends nothing.
    """
    return [_resume_slowly(connection, probe) for probe in probes]


def tell_answered(connection: Connection, news: Mapping[str, Answered]) -> None:
    """Note the answers of each endpoint, where nobody knows of later ones; an answer ends a row of failures."""
    if not news:
        return
    statement = upsert(connection.dialect.name, endpoints).values(
        [
            {"name": name, "state": State.open, "since": from_now(-one.began_s)}
            | {"alive_at": from_now(-one.began_s), "answered_at": from_now(-one.came_s)}
            for name, one in sorted(news.items())
        ]
    )
    known, told = endpoints.c, statement.excluded
    later = {
        "alive_at": case((known.alive_at > told.alive_at, known.alive_at), else_=told.alive_at),
        "answered_at": case((known.answered_at > told.answered_at, known.answered_at), else_=told.answered_at),
        "sick_jobs": case((known.answered_at >= told.answered_at, known.sick_jobs), else_=null()),
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=later))


def send_probe(connection: Connection, name: str, job_id: str | None, *, rested_s: float) -> bool:
    """Let `job_id` be the endpoint's probe until the next one; False where none is wanted any more.

    None: the last one still waits for a slot, and is given more time. The next one waits longer, the longer the
    endpoint has rested.
    """
    chosen = {} if job_id is None else {"probe_job": job_id}
    wanted = update(endpoints).where(endpoints.c.name == name, *_PROBED, endpoints.c.probe_at <= now())
    return connection.execute(wanted.values(probe_at=from_now(wait_s(rested_s)), **chosen)).rowcount == 1


def open_fully(connection: Connection, name: str) -> None:
    """Open an endpoint that has been slow for long enough."""
    slow = update(endpoints).where(
        endpoints.c.name == name, endpoints.c.state == State.slow, endpoints.c.since <= from_now(-SLOW_S)
    )
    # `since` stays the end of its rest: what was in flight then proves nothing.
    connection.execute(slow.values(state=State.open))


def pause(connection: Connection, name: str) -> None:
    """Pause an endpoint for an operator: until an operator resumes it."""
    enter(connection, {name: 0.0})
    suspects = _suspects(connection, endpoints.c.name == name)
    pause = {"state": State.paused, "cause": Cause.operator, "reason": None, "probe_at": None, "probe_job": None}
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(**pause, since=now(), **_CLEARED))
    free(connection, list(suspects.values()), within_s=0.0)


def resume(connection: Connection, name: str) -> bool:
    """Open an endpoint at once for an operator, whoever paused it; False where nothing waits for it.

    At an open endpoint, a job that trouble holds alone starts at once, and its waits begin at the shortest again.
    """
    its_row = endpoints.c.name == name
    suspects = _suspects(connection, its_row)
    if suspects:
        connection.execute(update(endpoints).where(its_row).values(_UNSUSPECTED))
    resting = update(endpoints).where(its_row, endpoints.c.state != State.open)
    opened = connection.execute(resting.values(**_started(State.open))).rowcount == 1
    return bool(free(connection, list(suspects.values()), within_s=0.0)) or opened


def enter(connection: Connection, ages: Mapping[str, float]) -> None:
    """Give endpoints a row that have none: open for as long as these seconds."""
    rows = [{"name": name, "state": State.open, "since": from_now(-ages[name])} for name in sorted(ages)]
    connection.execute(upsert(connection.dialect.name, endpoints).values(rows).on_conflict_do_nothing())


def pause_until_probe(connection: Connection, name: str, cause: Cause, code: ErrorCode) -> bool:
    """Pause an endpoint that does not rest yet, until a probe is answered; False where it rests.

    A job that was held alone is due with the others from now on.
    """
    suspects = _suspects(connection, endpoints.c.name == name)
    open_one = update(endpoints).where(endpoints.c.name == name, endpoints.c.state != State.paused)
    paused = {"state": State.paused, "cause": cause, "reason": code, "since": now(), "probe_job": None}
    pauses = connection.execute(open_one.values(**paused, probe_at=from_now(PROBE_S), **_CLEARED)).rowcount == 1
    free(connection, list(suspects.values()), within_s=HOLD_S)
    return pauses


def _resume_slowly(connection: Connection, probe: ProbeSucceeded) -> float | None:
    began_at = from_now(-probe.began_s)
    resting = (endpoints.c.name == probe.endpoint, *_PROBED, endpoints.c.since < began_at)
    rested = connection.execute(select(-seconds_until(endpoints.c.since)).where(*resting).with_for_update()).scalar()
    if rested is not None:
        values = _started(State.slow) | {"alive_at": began_at}
        connection.execute(update(endpoints).where(endpoints.c.name == probe.endpoint).values(values))
    return rested


def _started(state: State) -> dict[str, object]:
    """Return an endpoint's values from a pause's end on."""
    return {
        "state": state, "cause": None, "reason": None, "since": now(), "probe_at": None, "probe_job": None, **_CLEARED,
    }  # fmt: skip
