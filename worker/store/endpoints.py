"""ENDPOINTS: which of them rest, and why. One small row each, written when trouble comes or goes, read by every claim.

`core.health` decides; here its ages become instants of the database's clock, under the row's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, case, null, select, tuple_, update

from worker.core import health
from worker.core.failure import Code
from worker.core.health import PROBE_S, SLOW_S, STUBBORN_ATTEMPTS, Blame, Cause, Met, Stand, State
from worker.store.clock import from_now, now, seconds_until
from worker.store.tables import attempts, endpoints
from worker.store.upsert import upsert

_CLEARED = {"suspect_job": None, "suspect_at": None, "sick_jobs": None}
# Who resumes by itself; an operator's pause waits for the operator.
_PROBED = (endpoints.c.state == State.paused, endpoints.c.cause.in_([Cause.trouble, Cause.breaker]))
_LOOK = select(
    endpoints.c.name,
    endpoints.c.state,
    endpoints.c.cause,
    endpoints.c.reason,
    -seconds_until(endpoints.c.since),
    seconds_until(endpoints.c.probe_at),
    endpoints.c.probe_job,
).order_by(endpoints.c.name)


class Seen(NamedTuple):
    """An endpoint's row. `since_s`: for how long it has been so; `probe_in_s`: negative once a probe is overdue."""

    name: str
    state: State
    cause: Cause | None
    reason: str | None
    since_s: float
    probe_in_s: float | None
    probe_job: str | None

    @property
    def is_overdue(self) -> bool:
        """Whether a probe should go now."""
        probed = self.cause in (Cause.trouble, Cause.breaker)
        return probed and self.probe_in_s is not None and self.probe_in_s <= 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """An attempt that met trouble: its call began `began_s` ago, its worker's latest answer `answered_s` ago."""

    endpoint: str
    job_id: str
    attempt: int
    code: Code
    began_s: float
    answered_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose the trouble is; `paused`: this attempt is what made the endpoint rest."""

    blame: Blame
    paused: bool


class Answered(NamedTuple):
    """A worker's answers: the latest call that was answered began `began_s` ago, the last answer came `came_s` ago."""

    began_s: float
    came_s: float


@dataclass(frozen=True, slots=True)
class Passed:
    """A probe that was answered; its call began `began_s` ago."""

    endpoint: str
    began_s: float


def look(connection: Connection) -> dict[str, Seen]:
    """Return all endpoints that have a row, by name; the others are open."""
    rows = [Seen(row[0], State(row[1]), row[2] and Cause(row[2]), *row[3:]) for row in connection.execute(_LOOK)]
    return {row.name: row for row in rows}


def judge(connection: Connection, troubles: Sequence[Trouble]) -> list[Verdict]:
    """Decide on each trouble in turn, and pause the endpoints that two different jobs met it at."""
    enter(connection, {one.endpoint: one.began_s for one in sorted(troubles, key=lambda one: one.began_s)})
    before = _stands(connection, {one.endpoint for one in troubles})
    stubborn = _stubborn(connection, troubles)
    stands, verdicts, reasons = dict(before), [], dict[str, Code]()
    for one in troubles:
        met = Met(one.job_id, one.began_s, one.answered_s, stubborn.get((one.job_id, one.attempt)))
        stood = stands[one.endpoint]
        blame, stands[one.endpoint] = health.judge(stood, met)
        paused = stands[one.endpoint].state is State.paused and stood.state is not State.paused
        verdicts.append(Verdict(blame, paused))
        if paused:
            reasons[one.endpoint] = one.code
    for name in sorted(stands):
        if name in reasons:
            rest(connection, name, Cause.trouble, reasons[name])
        elif stands[name] != before[name]:
            suspect = {"suspect_job": stands[name].suspect_job, "suspect_at": from_now(-stands[name].suspect_s)}
            connection.execute(update(endpoints).where(endpoints.c.name == name).values(suspect))
    return verdicts


def passed(connection: Connection, probes: Sequence[Passed]) -> list[float | None]:
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


def send_probe(connection: Connection, name: str, job_id: str | None) -> bool:
    """Let `job_id` be the endpoint's probe until the next one; False where none is wanted any more.

    None: the last one still waits for a slot, and is given more time.
    """
    chosen = {} if job_id is None else {"probe_job": job_id}
    wanted = update(endpoints).where(endpoints.c.name == name, *_PROBED, endpoints.c.probe_at <= now())
    return connection.execute(wanted.values(probe_at=from_now(PROBE_S), **chosen)).rowcount == 1


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
    rest = {"state": State.paused, "cause": Cause.operator, "reason": None, "probe_at": None, "probe_job": None}
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(**rest, since=now(), **_CLEARED))


def resume(connection: Connection, name: str) -> bool:
    """Open an endpoint at once for an operator, whoever paused it; False where it is open."""
    resting = update(endpoints).where(endpoints.c.name == name, endpoints.c.state != State.open)
    return connection.execute(resting.values(**_started(State.open))).rowcount == 1


def enter(connection: Connection, ages: Mapping[str, float]) -> None:
    """Give endpoints a row that have none: open for as long as these seconds."""
    rows = [{"name": name, "state": State.open, "since": from_now(-ages[name])} for name in sorted(ages)]
    connection.execute(upsert(connection.dialect.name, endpoints).values(rows).on_conflict_do_nothing())


def _stands(connection: Connection, names: set[str]) -> dict[str, Stand]:
    columns = select(
        endpoints.c.name,
        endpoints.c.state,
        -seconds_until(endpoints.c.since),
        -seconds_until(endpoints.c.alive_at),
        endpoints.c.suspect_job,
        -seconds_until(endpoints.c.suspect_at),
    )
    # In the order of the names: two workers that lock the same rows lock them in the same order.
    rows = connection.execute(columns.where(endpoints.c.name.in_(sorted(names))).order_by("name").with_for_update())
    return {row[0]: Stand(State(row[1]), row[2], row[3], row[4], row[5] or 0.0) for row in rows}


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
            attempts.c.error_code.in_(sorted(health.TROUBLE)),
        )
    )
    ended: dict[tuple[str, int], list[float]] = {}
    for job_id, attempt, ended_s in rows:
        ended.setdefault(earlier[job_id, attempt], []).append(ended_s)
    return {key: min(ages) for key, ages in ended.items() if len(ages) == STUBBORN_ATTEMPTS}


def rest(connection: Connection, name: str, cause: Cause, code: Code) -> bool:
    """Pause an endpoint that does not rest yet, until a probe is answered; False where it rests."""
    open_one = update(endpoints).where(endpoints.c.name == name, endpoints.c.state != State.paused)
    paused = {"state": State.paused, "cause": cause, "reason": code, "since": now(), "probe_job": None}
    return connection.execute(open_one.values(**paused, probe_at=from_now(PROBE_S), **_CLEARED)).rowcount == 1


def _resume_slowly(connection: Connection, probe: Passed) -> float | None:
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
