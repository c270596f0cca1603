"""ENDPOINTS: the state of each endpoint. One small row, written when trouble starts or ends, read by every claim.

`jobs.core.endpoint_health` decides; its ages become instants of the database's clock here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, false, func, null, select, update

from worker.core.failure import ErrorCode
from worker.core.lifecycle import Status
from worker.jobs.core.endpoint_health import HOLD_S, PROBE_S, SLOW_S, Cause, State, wait_s
from worker.store.bulk_params import upsert
from worker.store.clock import TICK_S, from_now, now, seconds_until
from worker.store.tables import endpoints, jobs
from worker.store.transitions import hide_from_planner

_UNSUSPECTED = {"suspect_job": None, "suspect_at": None, "troubled_at": None}
_CLEARED = {**_UNSUSPECTED, "sick_jobs": None}
# Pauses that end by a probe; an operator's pause ends by the operator.
_PROBED = (endpoints.c.state == State.paused, endpoints.c.cause.in_([Cause.trouble, Cause.breaker]))
# A call was answered that began later than the suspect's call.
_IS_CLEARED = and_(endpoints.c.suspect_job.is_not(None), endpoints.c.suspect_at < endpoints.c.alive_at)
_READ_ALL = select(
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
    """An endpoint's row. `since_s`: age of its state. `probe_in_s`: negative when a probe is overdue.

    `is_cleared`: there is a suspect job, and another job was answered since.
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
        """True if a probe is due now."""
        probed = self.cause in (Cause.trouble, Cause.breaker)
        return probed and self.probe_in_s is not None and self.probe_in_s <= 0


class AnswerTimes(NamedTuple):
    """A worker's answers: its latest answered call began `began_s` ago, its latest answer came `came_s` ago."""

    began_s: float
    came_s: float


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """A probe that was answered; its call began `began_s` ago."""

    endpoint: str
    began_s: float


def read_all(connection: Connection) -> dict[str, EndpointRow]:
    """Return all endpoints that have a row, by name; an endpoint without a row is open."""
    rows = [
        EndpointRow(row[0], State(row[1]), row[2] and Cause(row[2]), *row[3:]) for row in connection.execute(_READ_ALL)
    ]
    return {row.name: row for row in rows}


def start_sooner(connection: Connection, job_ids: Sequence[str], *, within_s: float) -> int:
    """Let jobs that wait for their endpoint start within `within_s`; return the number of jobs that waited longer.

    Locked rows are skipped. Another transaction is about to move them, and waiting for it could deadlock: it may want
    the endpoint's row that we hold.
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
    """Clear the suspects of endpoints that answered other jobs since; return how many suspects start sooner."""
    rows = _suspects(connection, endpoints.c.name.in_(sorted(names)), _IS_CLEARED)
    if not rows:
        return 0
    connection.execute(update(endpoints).where(endpoints.c.name.in_(sorted(rows))).values(_UNSUSPECTED))
    return start_sooner(connection, list(rows.values()), within_s=HOLD_S)


def try_soon(connection: Connection, names: Sequence[str]) -> None:
    """Move the next probe of paused endpoints to now, and the next start of a job that is held alone.

    Called by a worker that starts: its configuration may have removed the cause.
    """
    ours = endpoints.c.name.in_(sorted(names))
    waiting = select(endpoints.c.name).where(ours, *_PROBED, endpoints.c.probe_at > now())
    if found := list(connection.scalars(waiting.order_by("name").with_for_update())):
        connection.execute(update(endpoints).where(endpoints.c.name.in_(found)).values(probe_at=now()))
    start_sooner(connection, list(_suspects(connection, ours).values()), within_s=0.0)


def _suspects(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, str]:
    """Return the suspect job of each endpoint; lock these endpoints in the order of their names."""
    suspected = select(endpoints.c.name, endpoints.c.suspect_job).where(endpoints.c.suspect_job.is_not(None))
    return dict(connection.execute(suspected.where(*conditions).order_by("name").with_for_update()).all())


def resume_probed(connection: Connection, probes: Sequence[ProbeSucceeded]) -> list[float | None]:
    """Resume endpoints, slowly, after an answered probe; return the seconds each was paused, None if it was not.

    A late answer to the probe of an earlier pause resumes nothing.
    """
    return [_resume_slowly(connection, probe) for probe in probes]


def note_answers(connection: Connection, answers: Mapping[str, AnswerTimes]) -> None:
    """Write the answers of each endpoint, unless later ones are written; an answer ends a row of failures."""
    if not answers:
        return
    statement = upsert(connection.dialect.name, endpoints).values(
        [
            {"name": name, "state": State.open, "since": from_now(-answered.began_s)}
            | {"alive_at": from_now(-answered.began_s), "answered_at": from_now(-answered.came_s)}
            for name, answered in sorted(answers.items())
        ]
    )
    known, new = endpoints.c, statement.excluded
    later = {
        "alive_at": case((known.alive_at > new.alive_at, known.alive_at), else_=new.alive_at),
        "answered_at": case((known.answered_at > new.answered_at, known.answered_at), else_=new.answered_at),
        "sick_jobs": case((known.answered_at >= new.answered_at, known.sick_jobs), else_=null()),
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=later))


def send_probe(connection: Connection, name: str, job_id: str | None, *, paused_s: float) -> bool:
    """Make `job_id` the endpoint's probe until the next one; False if no probe is due any more.

    None: the last probe still waits for a slot and gets more time. The wait before the next probe grows with the
    duration of the pause.
    """
    chosen = {} if job_id is None else {"probe_job": job_id}
    wanted = update(endpoints).where(endpoints.c.name == name, *_PROBED, endpoints.c.probe_at <= now())
    return connection.execute(wanted.values(probe_at=from_now(wait_s(paused_s)), **chosen)).rowcount == 1


def open_fully(connection: Connection, name: str) -> None:
    """Open an endpoint that has been slow for SLOW_S."""
    slow = update(endpoints).where(
        endpoints.c.name == name, endpoints.c.state == State.slow, endpoints.c.since <= from_now(-SLOW_S)
    )
    # `since` stays the end of the pause: calls that were in flight then prove nothing.
    connection.execute(slow.values(state=State.open))


def pause(connection: Connection, name: str) -> None:
    """Pause an endpoint until an operator resumes it."""
    insert_missing(connection, {name: 0.0})
    suspects = _suspects(connection, endpoints.c.name == name)
    pause = {"state": State.paused, "cause": Cause.operator, "reason": None, "probe_at": None, "probe_job": None}
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(**pause, since=now(), **_CLEARED))
    start_sooner(connection, list(suspects.values()), within_s=0.0)


def resume(connection: Connection, name: str) -> bool:
    """Open an endpoint at once for an operator, for any cause of its pause; False if nothing waited for that.

    At an open endpoint, a job that is held alone starts at once, and its waits start at the shortest again.
    """
    its_row = endpoints.c.name == name
    suspects = _suspects(connection, its_row)
    if suspects:
        connection.execute(update(endpoints).where(its_row).values(_UNSUSPECTED))
    unopened = update(endpoints).where(its_row, endpoints.c.state != State.open)
    opened = connection.execute(unopened.values(**_started(State.open))).rowcount == 1
    return bool(start_sooner(connection, list(suspects.values()), within_s=0.0)) or opened


def insert_missing(connection: Connection, ages: Mapping[str, float]) -> None:
    """Insert a row for each endpoint without one: open for at least so many seconds.

    An instant is rounded to the tick of the clock. Without the margin, the call that gave the age could seem to be
    older than the row, and would prove nothing.
    """
    rows = [{"name": name, "state": State.open, "since": from_now(-ages[name] - TICK_S)} for name in sorted(ages)]
    connection.execute(upsert(connection.dialect.name, endpoints).values(rows).on_conflict_do_nothing())


def pause_until_probe(connection: Connection, name: str, cause: Cause, code: ErrorCode) -> bool:
    """Pause an endpoint until a probe is answered; False if it is paused already.

    A job that was held alone is due with the others from now on.
    """
    suspects = _suspects(connection, endpoints.c.name == name)
    unpaused = update(endpoints).where(endpoints.c.name == name, endpoints.c.state != State.paused)
    paused = {"state": State.paused, "cause": cause, "reason": code, "since": now(), "probe_job": None}
    pauses = connection.execute(unpaused.values(**paused, probe_at=from_now(PROBE_S), **_CLEARED)).rowcount == 1
    start_sooner(connection, list(suspects.values()), within_s=HOLD_S)
    return pauses


def _resume_slowly(connection: Connection, probe: ProbeSucceeded) -> float | None:
    began_at = from_now(-probe.began_s)
    paused = (endpoints.c.name == probe.endpoint, *_PROBED, endpoints.c.since < began_at)
    paused_s = connection.execute(select(-seconds_until(endpoints.c.since)).where(*paused).with_for_update()).scalar()
    if paused_s is not None:
        values = _started(State.slow) | {"alive_at": began_at}
        connection.execute(update(endpoints).where(endpoints.c.name == probe.endpoint).values(values))
    return paused_s


def _started(state: State) -> dict[str, object]:
    """Return the values of an endpoint's row at the end of a pause."""
    return {
        "state": state, "cause": None, "reason": None, "since": now(), "probe_at": None, "probe_job": None, **_CLEARED,
    }  # fmt: skip
