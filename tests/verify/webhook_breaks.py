"""Damage to webhook rows, with the rule of `verify` that must report it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Executable, delete, insert, update

from tests.store.made import accept_all, entry, job, rows
from worker.jobs.store import cancel
from worker.store.clock import from_now, now
from worker.store.tables import jobs, workers
from worker.webhooks.store.tables import deliveries, delivery_attempts, events, receivers

NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass
class World:
    """A database with a delivery of each kind; `jobs`, `sent` and `events` map names to ids of jobs, deliveries and
    events.
    """

    engine: Engine
    mine: str
    jobs: dict[str, str] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    to: dict[str, str] = field(default_factory=dict)

    def end(self, **fields: dict[str, Any]) -> None:
        """Accept a job for each name and end the jobs in this order, four per transaction."""
        # The feed numbers the jobs of a transaction by id, so the ids ascend.
        self.jobs |= {name: str(uuid.UUID(int=number, version=4)) for number, name in enumerate(fields, 1)}
        accept_all(self.engine, *(entry(job(**one), id=self.jobs[name]) for name, one in fields.items()))
        ids = list(self.jobs.values())
        for first in range(0, len(ids), 4):
            with self.engine.begin() as connection:
                cancel.cancel(connection, ids[first:][:4])
        names = {job_id: name for name, job_id in self.jobs.items()}
        for row in rows(self.engine, "SELECT id, job_id, event_id FROM afterword_deliveries"):
            name = names[str(row.job_id)]
            self.sent[name], self.events[name] = str(row.id), str(row.event_id)


def of(delivery_id: str, **values: Any) -> Executable:
    return update(deliveries).where(deliveries.c.id == delivery_id).values(**values)


def event_of(event_id: str, **values: Any) -> Executable:
    return update(events).where(events.c.id == event_id).values(**values)


def attempt_of(delivery_id: str, **values: Any) -> Executable:
    return update(delivery_attempts).where(delivery_attempts.c.delivery_id == delivery_id).values(**values)


def job_of(job_id: str, **values: Any) -> Executable:
    return update(jobs).where(jobs.c.id == job_id).values(**values)


def another_attempt(delivery_id: str, number: int, **values: Any) -> Executable:
    closed = {
        "outcome": "failed", "finished_at": now(), "receiver_id": NOBODY, "worker_id": NOBODY, "origin": "event",
        "variant": "thin",
    }  # fmt: skip
    return insert(delivery_attempts).values(delivery_id=delivery_id, attempt=number, **closed | values)


def another_event(w: World, name: str, **values: Any) -> list[Executable]:
    """Write a second event and delivery for the same end."""
    event_id, delivery_id = str(uuid.uuid4()), str(uuid.uuid4())
    event = {"id": event_id, "job_id": w.jobs[name], "tenant": "default", "type": "job.cancelled", "thin": b"{}"}
    delivery = {
        "id": delivery_id, "event_id": event_id, "receiver_id": w.to["usual"], "job_id": w.jobs[name],
        "tenant": "default", "event_type": "job.cancelled", "status": "queued", "variant": "thin", "origin": "event",
        "sequence": 1,
    }  # fmt: skip
    return [
        insert(events).values(created_at=now(), **event | values),
        insert(deliveries).values(created_at=now(), run_at=now(), deadline=from_now(60.0), **delivery),
    ]


def untell(w: World, name: str) -> list[Executable]:
    return [
        delete(deliveries).where(deliveries.c.id == w.sent[name]), delete(events).where(events.c.id == w.events[name]),
    ]  # fmt: skip


Hand = Callable[[World], list[Executable]]
# The second column names a job, delivery, event or receiver: `jobs unsent`.
WEBHOOK_BREAKS: list[tuple[str, str, Hand]] = [
    ("ends_are_told", "jobs unsent", lambda w: untell(w, "unsent")),
    ("ends_are_told", "jobs first2", lambda w: untell(w, "first2")),
    ("ends_are_told", "jobs unregistered", lambda w: untell(w, "unregistered")),
    ("ends_are_told_once", "jobs done", lambda w: another_event(w, "done")),
    ("events_are_delivered", "events unsent", lambda w: [
        delete(deliveries).where(deliveries.c.id == w.sent["unsent"])
    ]),
    ("events_have_a_job", "events done", lambda w: [delete(jobs).where(jobs.c.id == w.jobs["done"])]),
    ("events_have_a_job", "events done", lambda w: [event_of(w.events["done"], job_id=None)]),
    ("events_have_a_job", "events done", lambda w: [event_of(w.events["done"], type="receiver.test")]),
    ("events_tell_an_end", "events done", lambda w: [event_of(w.events["done"], type="job.failed")]),
    ("events_tell_an_end", "events done", lambda w: [job_of(w.jobs["done"], status="queued", finished_at=None)]),
    ("events_tell_an_end", "events replayed", lambda w: [
        job_of(w.jobs["replayed"], status="failed", finished_at=from_now(-60.0))
    ]),
    ("bodies_are_of_their_job", "events done", lambda w: [event_of(w.events["done"], thin=b"not json")]),
    ("bodies_are_of_their_job", "events done", lambda w: [event_of(w.events["done"], full=b'["a list"]')]),
    ("bodies_are_of_their_job", "events done", lambda w: [event_of(w.events["done"], job_id=w.jobs["unsent"])]),
    ("bodies_are_of_their_job", "events done", lambda w: [event_of(w.events["done"], type="job.failed")]),
    ("bodies_are_of_their_job", "events done", lambda w: [
        event_of(w.events["done"], openai=b'{"id": "evt_1", "type": "response.cancelled", "data": {}}')
    ]),
    ("deliveries_have_their_event", "sent unsent", lambda w: [delete(events).where(events.c.id == w.events["unsent"])]),
    ("deliveries_have_their_event", "sent unsent", lambda w: [
        delete(receivers).where(receivers.c.id == w.to["usual"])
    ]),
    ("deliveries_have_their_event", "sent unsent", lambda w: [of(w.sent["unsent"], job_id=w.jobs["done"])]),
    ("deliveries_have_their_event", "sent unsent", lambda w: [of(w.sent["unsent"], tenant="another")]),
    ("deliveries_have_their_event", "sent unsent", lambda w: [delete(jobs).where(jobs.c.id == w.jobs["unsent"])]),
    ("deliveries_have_a_body", "sent unsent", lambda w: [event_of(w.events["unsent"], full=None)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [of(w.sent["tried"], attempt=2)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [another_attempt(w.sent["tried"], 3)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [
        attempt_of(w.sent["tried"], attempt=2), of(w.sent["tried"], attempt=2)
    ]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [of(w.sent["tried"], attempts_used=2)]),
    ("sending_worker_lives", "sent flying", lambda w: [delete(workers)]),
    ("sending_worker_lives", "sent unsent", lambda w: [of(w.sent["unsent"], worker_id=w.mine)]),
    ("sent_deliveries_have_an_open_attempt", "sent flying", lambda w: [
        attempt_of(w.sent["flying"], outcome="unknown", finished_at=now())
    ]),
    ("delivered_means_it_was_taken", "sent done", lambda w: [attempt_of(w.sent["done"], outcome="failed")]),
    ("delivered_means_it_was_taken", "sent done", lambda w: [attempt_of(w.sent["done"], sent_at=None)]),
    ("deliveries_have_a_start", "sent unsent", lambda w: [of(w.sent["unsent"], run_at=deliveries.c.deadline)]),
    ("delivery_deadline_is_kept", "sent unsent", lambda w: [of(w.sent["unsent"], deadline=from_now(-1.0))]),
    ("waiting_deliveries_wait_for_one", "sent first3", lambda w: [
        of(w.sent["first2"], status="delivered", finished_at=now())
    ]),
    ("waiting_deliveries_wait_for_one", "sent strict2", lambda w: [
        update(receivers).where(receivers.c.id == w.to["strict"]).values(on_exhausted="skip")
    ]),
    ("held_deliveries_have_a_disabled_receiver", "sent held", lambda w: [
        update(receivers).where(receivers.c.id == w.to["off"]).values(status="enabled", disabled_reason=None)
    ]),
    ("lanes_have_no_gap", "sent first3", lambda w: [of(w.sent["first3"], sequence=4)]),
    ("lanes_have_no_gap", "sent first3", lambda w: [of(w.sent["first3"], sequence=2)]),
    ("lanes_have_no_gap", "sent first2", lambda w: untell(w, "first1")),
    ("open_delivery_attempts_are_held", "sent done", lambda w: [
        attempt_of(w.sent["done"], outcome=None, finished_at=None)
    ]),
    ("open_delivery_attempts_are_held", "sent flying", lambda w: [
        of(w.sent["flying"], status="queued", worker_id=None)
    ]),
    ("delivery_attempts_have_a_delivery", "sent done", lambda w: [
        delete(deliveries).where(deliveries.c.id == w.sent["done"])
    ]),
    ("disabled_receivers_say_why", "to off", lambda w: [
        update(receivers).where(receivers.c.id == w.to["off"]).values(disabled_reason=None)
    ]),
    ("disabled_receivers_say_why", "to usual", lambda w: [
        update(receivers).where(receivers.c.id == w.to["usual"]).values(disabled_reason="gone")
    ]),
]  # fmt: skip
