"""Rules of deliveries: their event, body, attempts, worker, deadline, hold and order."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from worker.core.lifecycle import DeliveryOutcome, DeliveryStatus
from worker.store.clock import now
from worker.store.tables import jobs, workers
from worker.verify.rule import Offender, found
from worker.webhooks.core.event import EventType
from worker.webhooks.core.payload import Variant
from worker.webhooks.store.ordering import UNFINISHED, WAITS
from worker.webhooks.store.tables import deliveries, delivery_attempts, events, receivers

_of_delivery = delivery_attempts.c.delivery_id == deliveries.c.id
_current = and_(_of_delivery, delivery_attempts.c.attempt == deliveries.c.attempt)
_is_queued = deliveries.c.status == DeliveryStatus.queued
_is_sent = deliveries.c.status == DeliveryStatus.in_progress
_waits = func.coalesce(deliveries.c.waiting_for, "") == WAITS
_to = receivers.c.id == deliveries.c.receiver_id
_before = deliveries.alias("before")
_in_lane = and_(_before.c.receiver_id == deliveries.c.receiver_id, _before.c.ordering_key == deliveries.c.ordering_key)


def deliveries_have_their_event(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every delivery has an event, a receiver and, unless it is a test, a job of the same tenant."""
    event = exists().where(
        events.c.id == deliveries.c.event_id,
        events.c.type == deliveries.c.event_type,
        events.c.tenant == deliveries.c.tenant,
    )
    receiver = exists().where(_to, receivers.c.tenant == deliveries.c.tenant)
    job = exists().where(jobs.c.id == deliveries.c.job_id, jobs.c.tenant == deliveries.c.tenant)
    of_job = exists().where(events.c.id == deliveries.c.event_id, events.c.job_id == deliveries.c.job_id)
    is_test = and_(deliveries.c.event_type == EventType.test, deliveries.c.job_id.is_(None))
    columns = [deliveries.c[name] for name in ("id", "event_id", "event_type", "receiver_id", "job_id", "tenant")]
    wrong = or_(~event, ~receiver, and_(~is_test, or_(~job, ~of_job)))
    return found(connection, select(*columns).where(within, wrong))


def deliveries_have_a_body(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The event of a delivery has the body of the delivery's variant."""
    has_body = [and_(deliveries.c.variant == variant, events.c[variant].is_not(None)) for variant in Variant]
    body = exists().where(events.c.id == deliveries.c.event_id, or_(*has_body))
    return found(connection, select(deliveries.c.id, deliveries.c.event_id, deliveries.c.variant).where(within, ~body))


def delivery_attempts_are_numbered(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery's attempts are numbered 1 to n without a gap, n is its `attempt`, and `attempts_used` is at most n."""

    def over_attempts(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(select(value).where(_of_delivery).scalar_subquery(), 0)

    rows, last = over_attempts(func.count()), over_attempts(func.max(delivery_attempts.c.attempt))
    first, used = over_attempts(func.min(delivery_attempts.c.attempt)), deliveries.c.attempts_used
    number = deliveries.c.attempt
    wrong = or_(number != rows, last != rows, and_(rows > 0, first != 1), used < 0, used > number)
    columns = (deliveries.c.id, number, used, rows.label("rows"), last.label("last"))
    return found(connection, select(*columns).where(within, wrong))


def sending_worker_lives(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery has a worker exactly while it is in progress, and the worker's lease is valid."""
    alive = exists().where(workers.c.id == deliveries.c.worker_id, workers.c.lease_until > now())
    wrong = or_(and_(_is_sent, ~alive), and_(~_is_sent, deliveries.c.worker_id.is_not(None)))
    columns = [deliveries.c[name] for name in ("id", "status", "worker_id", "attempt")]
    return found(connection, select(*columns).where(within, wrong))


def sent_deliveries_have_an_open_attempt(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery in progress has an open attempt with its attempt number and its worker."""
    same_worker = delivery_attempts.c.worker_id == deliveries.c.worker_id
    held = exists().where(_current, delivery_attempts.c.outcome.is_(None), same_worker)
    columns = (deliveries.c.id, deliveries.c.attempt, deliveries.c.worker_id)
    return found(connection, select(*columns).where(within, _is_sent, ~held))


def delivered_means_it_was_taken(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The last attempt of a delivered delivery was sent, and the receiver accepted it."""
    taken = exists().where(
        _current,
        delivery_attempts.c.outcome == DeliveryOutcome.delivered,
        delivery_attempts.c.sent_at.is_not(None),
    )
    delivered = deliveries.c.status == DeliveryStatus.delivered
    return found(connection, select(deliveries.c.id, deliveries.c.attempt).where(within, delivered, ~taken))


def deliveries_have_a_start(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A queued delivery that waits for no other starts before its deadline: otherwise it would never be sent."""
    never = (_is_queued, ~_waits, deliveries.c.run_at >= deliveries.c.deadline, deliveries.c.deadline > now())
    columns = [deliveries.c[name] for name in ("id", "waiting_for", "run_at", "deadline")]
    return found(connection, select(*columns).where(within, *never))


def delivery_deadline_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No queued delivery is past its deadline."""
    overdue = (_is_queued, deliveries.c.deadline < now())
    return found(connection, select(deliveries.c.id, deliveries.c.deadline).where(within, *overdue))


def waiting_deliveries_wait_for_one(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A delivery waits for its order only if an earlier one has not ended, or has failed with `on_exhausted=block`."""
    unfinished = _before.c.status.in_([str(status) for status in UNFINISHED])
    strict = exists().where(_to, receivers.c.on_exhausted == "block")
    lost = and_(_before.c.status == DeliveryStatus.failed, strict)
    ahead = exists().where(_in_lane, _before.c.sequence < deliveries.c.sequence, or_(unfinished, lost))
    columns = [deliveries.c[name] for name in ("id", "receiver_id", "ordering_key", "sequence")]
    return found(connection, select(*columns).where(within, _is_queued, _waits, ~ahead))


def held_deliveries_have_a_disabled_receiver(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The receiver of a held delivery is disabled: otherwise nothing would release the delivery."""
    disabled = exists().where(_to, receivers.c.status == "disabled")
    held = deliveries.c.status == DeliveryStatus.held
    return found(connection, select(deliveries.c.id, deliveries.c.receiver_id).where(within, held, ~disabled))


def lanes_have_no_gap(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The deliveries to a receiver with the same ordering key are numbered 1 to n, each number once."""
    twin = exists().where(_in_lane, _before.c.sequence == deliveries.c.sequence, _before.c.id != deliveries.c.id)
    previous = exists().where(_in_lane, _before.c.sequence == deliveries.c.sequence - 1)
    keyed, number = deliveries.c.ordering_key.is_not(None), deliveries.c.sequence
    wrong = or_(twin, number < 1, and_(number > 1, ~previous))
    columns = [deliveries.c[name] for name in ("id", "receiver_id", "ordering_key", "sequence")]
    return found(connection, select(*columns).where(within, keyed, wrong))


def open_delivery_attempts_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An open attempt is the current attempt of a delivery in progress, with the same worker."""
    held = exists().where(_current, _is_sent, deliveries.c.worker_id == delivery_attempts.c.worker_id)
    columns = [delivery_attempts.c[name] for name in ("delivery_id", "attempt", "worker_id")]
    return found(connection, select(*columns).where(within, delivery_attempts.c.outcome.is_(None), ~held))


def delivery_attempts_have_a_delivery(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every attempt belongs to a delivery and has its receiver."""
    delivery = exists().where(_of_delivery, deliveries.c.receiver_id == delivery_attempts.c.receiver_id)
    columns = [delivery_attempts.c[name] for name in ("delivery_id", "attempt", "receiver_id")]
    return found(connection, select(*columns).where(within, ~delivery))


def disabled_receivers_say_why(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A disabled receiver has a reason, an enabled receiver has none."""
    status, reason = receivers.c.status, receivers.c.disabled_reason
    wrong = or_(and_(status == "disabled", reason.is_(None)), and_(status == "enabled", reason.is_not(None)))
    return found(connection, select(receivers.c.id, receivers.c.name, status, reason).where(within, wrong))
