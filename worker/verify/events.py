"""Rules of webhook events: one for each end of a job, with the right body, and a delivery for each receiver."""

import json
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, literal, or_, select

from worker.core.lifecycle import FINAL, Status
from worker.store.clock import shifted
from worker.store.tables import finished, jobs
from worker.store.types import Instant
from worker.verify.rule import Offender, found
from worker.webhooks.core.event import EventType, event_id_of, event_type
from worker.webhooks.core.payload import Variant
from worker.webhooks.core.subscription import wants
from worker.webhooks.store.recipients import NO_RECEIVER, name_of
from worker.webhooks.store.tables import deliveries, events, receivers

# A receiver counts as subscribed at an instant if it got such events within this time before and after.
NEAR_S: Final = 60.0

_is_test = events.c.type == EventType.test
_of_job = events.c.job_id == jobs.c.id
_is_final = jobs.c.status.in_(sorted(FINAL))
_type_of_status = literal("job.").concat(jobs.c.status)
_is_not_removed = receivers.c.status != "removed"
_RECEIVERS = select(
    *(receivers.c[name] for name in ("id", "tenant", "name", "created_at", "is_default", "events", "url"))
).where(_is_not_removed)


def events_are_delivered(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every event has at least one delivery."""
    delivery = exists().where(deliveries.c.event_id == events.c.id)
    return found(connection, select(events.c.id, events.c.type, events.c.job_id).where(within, ~delivery))


def events_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every event has a job, except a receiver's test."""
    job = exists().where(_of_job)
    wrong = or_(_is_test == events.c.job_id.is_not(None), and_(~_is_test, ~job))
    return found(connection, select(events.c.id, events.c.type, events.c.job_id).where(within, wrong))


def events_tell_an_end(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The job of an event has ended with the event's status, or was replayed since."""
    same_status = and_(_is_final, events.c.type == _type_of_status)
    earlier = and_(jobs.c.generation > 0, or_(~_is_final, events.c.created_at < jobs.c.finished_at))
    columns = select(events.c.id, events.c.type, jobs.c.id.label("job_id"), jobs.c.status, jobs.c.generation)
    return found(connection, columns.join(jobs, _of_job).where(within, ~or_(same_status, earlier)))


def ends_are_told_once(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has at most one event for its first end and one for each replay."""
    number = select(func.count()).where(_of_job).scalar_subquery()
    columns = (jobs.c.id, jobs.c.generation, number.label("events"))
    return found(connection, select(*columns).where(within, number > jobs.c.generation + 1))


def ends_are_told(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An ended job has an event for the receiver it names or for its tenant's defaults, if this can be known."""
    numbered = exists().where(finished.c.job_id == jobs.c.id)
    has_event = exists().where(_of_job, events.c.created_at >= jobs.c.finished_at)
    since = or_(receivers.c.created_at <= jobs.c.finished_at, receivers.c.url == "")
    has_receiver = exists().where(receivers.c.tenant == jobs.c.tenant, since, _is_not_removed)
    without_event = select(jobs.c.id, jobs.c.tenant, jobs.c.status, jobs.c.webhook, jobs.c.finished_at).where(
        within, _is_final, numbered, ~has_event, or_(jobs.c.webhook.is_(None), jobs.c.webhook != NO_RECEIVER)
    )
    rows = connection.execute(without_event.where(has_receiver)).all()
    tenants = sorted({row.tenant for row in rows})
    for receiver in connection.execute(_RECEIVERS.where(receivers.c.tenant.in_(tenants))).all() if rows else ():
        for row in rows:
            if _is_for(row, receiver) and _was_subscribed(connection, row, receiver):
                yield str(row.id), f"it is {row.status}, but the receiver {receiver.name} has no event of it"


def _is_for(row: Any, receiver: Any) -> bool:
    """Say whether a job's end is for a receiver with its present registration."""
    # A placeholder is created by the first job that names it, just after that job's end.
    is_newer = receiver.created_at > row.finished_at and receiver.url != ""
    if receiver.tenant != row.tenant or is_newer:
        return False
    name = None if row.webhook is None else name_of(json.loads(row.webhook))
    is_recipient = receiver.is_default if name is None else receiver.name == name
    return is_recipient and wants(json.loads(receiver.events), event_type(Status(row.status)))


def _was_subscribed(connection: Connection, row: Any, receiver: Any) -> bool:
    """Say whether a receiver surely wanted this event: it got events of this type shortly before and after.

    The database has no history of registrations. We assume that no registration changes twice within NEAR_S.
    """
    if not receiver.url:
        return True
    at = literal(row.finished_at, Instant())
    alike = select(deliveries.c.id).join(jobs, jobs.c.id == deliveries.c.job_id)
    alike = alike.where(
        deliveries.c.receiver_id == receiver.id,
        deliveries.c.event_type == event_type(Status(row.status)),
        jobs.c.webhook.is_(None) if row.webhook is None else jobs.c.webhook.is_not(None),
    )
    before = alike.where(deliveries.c.created_at.between(shifted(at, -NEAR_S), at))
    after = alike.where(deliveries.c.created_at.between(at, shifted(at, NEAR_S)))
    return all(connection.execute(near.limit(1)).first() is not None for near in (before, after))


def bodies_are_of_their_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The bodies of an event are JSON with the event's id and type and its job's id."""
    columns = [events.c[name] for name in ("id", "type", "job_id", *Variant)]
    for row in connection.execute(select(*columns).where(within)):
        for variant in Variant:
            body = row._mapping[variant]
            if body is not None and (wrong := _fault(bytes(body), row, variant)):
                yield str(row.id), f"the body {variant} of job {row.job_id} {wrong}"


def _fault(body: bytes, row: Row[Any], variant: Variant) -> str | None:
    try:
        event = json.loads(body)
        event_id, kind, subject = event["id"], event["type"], event["data"].get("id")
    except (ValueError, LookupError, TypeError, AttributeError):
        return "is not a JSON event"
    if event_id != event_id_of(UUID(row.id)):
        return f"has the id {event_id}"
    # OpenAI's types do not match ours one to one.
    if variant is not Variant.openai and kind != row.type:
        return f"has the type {kind}"
    if row.job_id is not None and subject != row.job_id:
        return f"has the job id {subject}"
    return None
