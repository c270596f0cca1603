"""The rules about events, deliveries and their attempts: as for jobs, nothing lost, stuck or without a holder."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import now
from worker.store.tables import jobs, workers
from worker.store.webhook_tables import deliveries, delivery_attempts, events, receivers

Offender = tuple[str, str]

_of_delivery = delivery_attempts.c.delivery_id == deliveries.c.id
_current = and_(_of_delivery, delivery_attempts.c.attempt == deliveries.c.attempt)


def found(connection: Connection, statement: Select[Any]) -> Iterable[Offender]:
    """Yield the first column as the id, the others by name as what is wrong."""
    for row in connection.execute(statement):
        (_, key), *told = row._mapping.items()
        yield str(key), ", ".join(f"{name} is {value}" for name, value in told)


def events_have_deliveries(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every event has its deliveries: it was written for somebody."""
    sent = exists().where(deliveries.c.event_id == events.c.id)
    return found(connection, select(events.c.id, events.c.job_id, events.c.type).where(within, ~sent))


def events_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every event that is not a test belongs to a job."""
    job = exists().where(jobs.c.id == events.c.job_id)
    return found(connection, select(events.c.id, events.c.job_id).where(within, events.c.job_id.is_not(None), ~job))


def deliveries_lead_somewhere(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every delivery has its event and its receiver."""
    event = exists().where(events.c.id == deliveries.c.event_id)
    receiver = exists().where(receivers.c.id == deliveries.c.receiver_id)
    columns = (deliveries.c.id, deliveries.c.event_id, deliveries.c.receiver_id)
    return found(connection, select(*columns).where(within, or_(~event, ~receiver)))


def delivery_holder_lives(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery in progress is held by a worker whose lease stands."""
    alive = exists().where(workers.c.id == deliveries.c.worker_id, workers.c.lease_until > now())
    running = deliveries.c.status == DeliveryStatus.in_progress
    columns = (deliveries.c.id, deliveries.c.worker_id, deliveries.c.attempt)
    return found(connection, select(*columns).where(within, running, ~alive))


def delivery_deadline_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No delivery waits whose deadline has passed."""
    overdue = (deliveries.c.status == DeliveryStatus.queued, deliveries.c.deadline < now())
    return found(connection, select(deliveries.c.id, deliveries.c.deadline).where(within, *overdue))


def deliveries_in_progress_have_an_open_attempt(
    connection: Connection, within: ColumnElement[bool]
) -> Iterable[Offender]:
    """A delivery in progress has an open attempt of its number and its worker."""
    mine = delivery_attempts.c.worker_id == deliveries.c.worker_id
    held = exists().where(_current, delivery_attempts.c.outcome.is_(None), mine)
    running = deliveries.c.status == DeliveryStatus.in_progress
    columns = (deliveries.c.id, deliveries.c.attempt, deliveries.c.worker_id)
    return found(connection, select(*columns).where(within, running, ~held))


def delivery_attempts_are_numbered(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery's attempts are numbered 1 to n without a gap, and n is the delivery's own number."""

    def of(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(select(value).where(_of_delivery).scalar_subquery(), 0)

    number = delivery_attempts.c.attempt
    rows, last, least = of(func.count()), of(func.max(number)), of(func.min(number))
    wrong = or_(deliveries.c.attempt != rows, last != rows, and_(rows > 0, least != 1))
    columns = (deliveries.c.id, deliveries.c.attempt, rows.label("rows"), last.label("last"))
    return found(connection, select(*columns).where(within, wrong))


def open_delivery_attempts_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An open attempt is the current one of a delivery in progress, by the same worker."""
    mine = deliveries.c.worker_id == delivery_attempts.c.worker_id
    held = exists().where(_current, deliveries.c.status == DeliveryStatus.in_progress, mine)
    columns = (delivery_attempts.c.delivery_id, delivery_attempts.c.attempt, delivery_attempts.c.worker_id)
    return found(connection, select(*columns).where(within, delivery_attempts.c.outcome.is_(None), ~held))
