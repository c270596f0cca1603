"""EMIT: writes the events and deliveries of jobs that have just ended, in the transaction that ends the jobs.

The job's field `webhook` selects the receivers: absent means the tenant's default receivers, `{"to": name}` a named
receiver, `{"url": …}` a receiver created for the URL, null no receiver. If the named receiver is not registered yet,
the delivery is on hold until its registration. The bodies are frozen here; dispatch and `deliver` do the rest.
"""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select

from worker.chat.usage import TOKENS
from worker.core.lifecycle import DeliveryStatus, Status
from worker.store.clock import from_now, now
from worker.store.tables import answers, attempts, finished, jobs
from worker.webhooks.core.event import Bodies, Finished, Payload, event_id_of, event_type, freeze
from worker.webhooks.core.payload import Profile, Variant, variant
from worker.webhooks.core.subscription import wants
from worker.webhooks.store import ordering
from worker.webhooks.store.recipients import Recipient, find_recipients
from worker.webhooks.store.tables import deliveries, events

# The deadline of a delivery, for every schedule.
DEADLINE_S = 7 * 86400.0
_COLUMNS = (
    jobs.c.id, jobs.c.tenant, jobs.c.status, jobs.c.batch, jobs.c.custom_id, jobs.c.idempotency_key, jobs.c.endpoint,
    jobs.c.model, jobs.c.attempt.label("attempts"), jobs.c.created_at, jobs.c.started_at, jobs.c.finished_at,
    answers.c.finish_reason, answers.c.response, jobs.c.error_code, jobs.c.error_message, jobs.c.error, answers.c.usage,
    attempts.c.reported_cost, jobs.c.metadata, jobs.c.ordering_key, finished.c.cursor,
)  # fmt: skip
_ROWS = (
    select(*_COLUMNS, jobs.c.generation, *(attempts.c[name] for name in TOKENS))
    .select_from(jobs)
    .join(finished, finished.c.job_id == jobs.c.id)
    .outerjoin(attempts, and_(attempts.c.job_id == jobs.c.id, attempts.c.attempt == jobs.c.answer_attempt))
    .outerjoin(answers, and_(answers.c.job_id == jobs.c.id, answers.c.attempt == jobs.c.answer_attempt))
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(finished.c.cursor)
)


def emit_events(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """Write the events of jobs that have ended and have a number in the feed; return the due deliveries by job id.

    The caller holds the lock of the feed's counter (`jobs.store.finished_feed`), so no other transaction numbers
    deliveries at the same time.
    """
    recipients = find_recipients(connection, job_ids)
    if not recipients:
        return {}
    batch = EventBatch(connection)
    for row in connection.execute(_ROWS, {"ids": sorted(recipients)}):
        kind = event_type(Status(row.status))
        interested = [recipient for recipient in recipients[row.id] if wants(json.loads(recipient.events), kind)]
        if interested:
            batch.add(row, interested)
    batch.write()
    return batch.ready


class EventBatch:
    """The events and deliveries of one transaction; `ready` are the due deliveries by job id."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: list[dict[str, Any]] = []
        self._deliveries: list[dict[str, Any]] = []
        self._positions: dict[ordering.Lane, ordering.LanePosition] = {}
        self.ready: dict[str, list[str]] = {}

    def add(self, row: Any, recipients: Sequence[Recipient]) -> None:
        """Freeze the event of a job and add a delivery for each recipient."""
        event_id = uuid.uuid4()
        # A placeholder gets all bodies, because its registration may choose any of them.
        payloads = {
            Payload.full if recipient.is_placeholder else Payload(recipient.payload) for recipient in recipients
        }
        bodies = freeze(event_id_of(event_id), _finished(row), payloads)
        wants_openai = any(recipient.profile == Profile.openai or recipient.is_placeholder for recipient in recipients)
        self._events.append(
            {
                "id": str(event_id),
                "job_id": row.id,
                "tenant": row.tenant,
                "type": bodies.type,
                "thin": bodies.thin,
                "full": bodies.full,
                "openai": bodies.openai if wants_openai else None,
            }
        )
        for recipient in recipients:
            self._add_delivery(row, str(event_id), bodies, recipient)

    def write(self) -> None:
        """Insert the added rows."""
        if not self._events:
            return
        self._connection.execute(insert(events).values(created_at=now()), self._events)
        for waits in (False, True):
            rows = [row for row in self._deliveries if (row["waiting_for"] is not None) is waits]
            if rows:
                run_at = from_now(DEADLINE_S) if waits else now()
                statement = insert(deliveries).values(
                    run_at=run_at, deadline=from_now(DEADLINE_S), created_at=now(), origin="event"
                )
                self._connection.execute(statement, rows)

    def _add_delivery(self, row: Any, event_id: str, bodies: Bodies, to: Recipient) -> None:
        position = self._position(row, to)
        delivery_id = str(uuid.uuid4())
        full_bytes = None if bodies.full is None else len(bodies.full)
        chosen: Variant = variant(Payload(to.payload), Profile(to.profile), full_bytes=full_bytes)
        disabled = to.status == "disabled"
        self._deliveries.append(
            {
                "id": delivery_id,
                "event_id": event_id,
                "receiver_id": to.id,
                "job_id": row.id,
                "tenant": row.tenant,
                "event_type": bodies.type,
                "status": DeliveryStatus.held if disabled else DeliveryStatus.queued,
                "variant": chosen,
                "ordering_key": row.ordering_key if to.ordering == "per_key" else None,
                "sequence": position.sequence,
                "after_gap": position.gap,
                "waiting_for": ordering.WAITS if position.waits else None,
            }
        )
        if not disabled and not position.waits:
            self.ready.setdefault(row.id, []).append(delivery_id)

    def _position(self, row: Any, to: Recipient) -> ordering.LanePosition:
        if to.ordering != "per_key" or row.ordering_key is None:
            return ordering.LanePosition(row.generation + 1, waits=False, gap=False)
        lane = (to.id, row.ordering_key)
        position = self._positions.get(lane) or ordering.next_position(self._connection, lane)
        # The next delivery of this lane in this transaction waits for this delivery.
        self._positions[lane] = ordering.LanePosition(position.sequence + 1, waits=True, gap=False)
        return position


def _finished(row: Any) -> Finished:
    values = {column.key: getattr(row, column.key) for column in _COLUMNS}
    values |= {"status": Status(row.status), "tokens": {name: getattr(row, name) for name in TOKENS}}
    return Finished(**values)
