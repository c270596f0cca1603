"""Rules of paused endpoints: they have a cause, and probes find out when they are back."""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, exists, or_, select

from worker.core.lifecycle import Status
from worker.jobs.core.endpoint_health import SLOW_S, Cause, State
from worker.store.clock import from_now, now
from worker.store.tables import endpoints, jobs
from worker.verify.rule import Offender, found

_resumes = endpoints.c.cause.in_([Cause.trouble, Cause.breaker])
_is_probed = (endpoints.c.cause.is_not(None)) & _resumes


def rest_has_a_cause(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An endpoint has a cause exactly while it is paused; if no operator paused it, also a reason and a probe time."""
    wrong = or_(
        (endpoints.c.state == State.paused) != endpoints.c.cause.is_not(None),
        _is_probed != endpoints.c.reason.is_not(None),
        _is_probed != endpoints.c.probe_at.is_not(None),
        ~_is_probed & endpoints.c.probe_job.is_not(None),
        endpoints.c.suspect_job.is_not(None) != endpoints.c.suspect_at.is_not(None),
        (endpoints.c.state == State.paused) & endpoints.c.sick_jobs.is_not(None),
    )
    columns = [endpoints.c[name] for name in ("name", "state", "cause", "reason", "probe_at", "probe_job")]
    return found(connection, select(*columns, endpoints.c.suspect_job, endpoints.c.suspect_at).where(within, wrong))


def probes_are_jobs(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The probe of an endpoint is a job of this endpoint."""
    job = exists().where(jobs.c.id == endpoints.c.probe_job, jobs.c.endpoint == endpoints.c.name)
    probes = select(endpoints.c.name, endpoints.c.probe_job).where(within, endpoints.c.probe_job.is_not(None))
    return found(connection, probes.where(~job))


def rest_is_probed(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A paused endpoint is probed while jobs wait for it, unless an operator paused it."""
    waits = exists().where(
        jobs.c.endpoint == endpoints.c.name,
        jobs.c.status == Status.queued,
        jobs.c.run_at <= now(),
        jobs.c.deadline > now(),
    )
    # The offender names `probe_at`. Each probe moves it, so the second check does not take a later probe for this one.
    overdue = select(endpoints.c.name, endpoints.c.probe_at).where(within, _resumes, endpoints.c.probe_at <= now())
    return found(connection, overdue.where(waits))


def slow_start_ends(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The slow start of an endpoint ends after some seconds."""
    late = (endpoints.c.state == State.slow, endpoints.c.since <= from_now(-SLOW_S))
    return found(connection, select(endpoints.c.name, endpoints.c.since).where(within, *late))
