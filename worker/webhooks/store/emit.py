"""TELL: who hears of the jobs that have just ended. Events and deliveries, written in the transaction of the end.

A job whose `webhook` is absent goes to its tenant's default receivers, `{"to": name}` to one, `{"url": …}` to a
receiver made for the address, null to nobody. What names a receiver that nobody has registered is held for whoever
will register it. Bodies are frozen here; dispatch and `deliver` do the rest.
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
from worker.webhooks.store.recipients import Recipient, audience
from worker.webhooks.store.tables import deliveries, events

# How long a delivery is tried, whatever its schedule says.
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
    """Write the events of jobs that have just ended and were numbered; return the deliveries that may go, by job.

    The caller holds the counter's lock (`finish.number`), so that nobody else gives places to deliveries meanwhile.
    """
    heard = audience(connection, job_ids)
    if not heard:
        return {}
    told = EventBatch(connection)
    for row in connection.execute(_ROWS, {"ids": sorted(heard)}):
        listeners = [one for one in heard[row.id] if wants(json.loads(one.events), event_type(Status(row.status)))]
        if listeners:
            told.add(row, listeners)
    told.write()
    return told.ready


class EventBatch:
    """The rows of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: list[dict[str, Any]] = []
        self._deliveries: list[dict[str, Any]] = []
        self._places: dict[ordering.Lane, ordering.LanePosition] = {}
        self.ready: dict[str, list[str]] = {}

    def add(self, row: Any, listeners: Sequence[Recipient]) -> None:
        """Freeze the event of a job and give each of its receivers a delivery."""
        new = uuid.uuid4()
        # Whoever registers an awaited receiver may choose any of them.
        payloads = {Payload.full if one.is_awaited else Payload(one.payload) for one in listeners}
        bodies = freeze(event_id_of(new), _finished(row), payloads)
        wants_openai = any(one.profile == Profile.openai or one.is_awaited for one in listeners)
        self._events.append(
            {
                "id": str(new),
                "job_id": row.id,
                "tenant": row.tenant,
                "type": bodies.type,
                "thin": bodies.thin,
                "full": bodies.full,
                "openai": bodies.openai if wants_openai else None,
            }
        )
        for one in listeners:
            self._deliver(row, str(new), bodies, one)

    def write(self) -> None:
        """Insert what was added."""
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

    def _deliver(self, row: Any, event_id: str, bodies: Bodies, to: Recipient) -> None:
        place = self._place(row, to)
        new = str(uuid.uuid4())
        full_bytes = None if bodies.full is None else len(bodies.full)
        chosen: Variant = variant(Payload(to.payload), Profile(to.profile), full_bytes=full_bytes)
        disabled = to.status == "disabled"
        self._deliveries.append(
            {
                "id": new,
                "event_id": event_id,
                "receiver_id": to.id,
                "job_id": row.id,
                "tenant": row.tenant,
                "event_type": bodies.type,
                "status": DeliveryStatus.held if disabled else DeliveryStatus.queued,
                "variant": chosen,
                "ordering_key": row.ordering_key if to.ordering == "per_key" else None,
                "sequence": place.sequence,
                "after_gap": place.gap,
                "waiting_for": ordering.WAITS if place.waits else None,
            }
        )
        if not disabled and not place.waits:
            self.ready.setdefault(row.id, []).append(new)

    def _place(self, row: Any, to: Recipient) -> ordering.LanePosition:
        if to.ordering != "per_key" or row.ordering_key is None:
            return ordering.LanePosition(row.generation + 1, waits=False, gap=False)
        lane = (to.id, row.ordering_key)
        place = self._places.get(lane) or ordering.next_place(self._connection, lane)
        # What follows in this transaction waits for this one.
        self._places[lane] = ordering.LanePosition(place.sequence + 1, waits=True, gap=False)
        return place


def _finished(row: Any) -> Finished:
    values = {column.key: getattr(row, column.key) for column in _COLUMNS}
    values |= {"status": Status(row.status), "tokens": {name: getattr(row, name) for name in TOKENS}}
    return Finished(**values)
