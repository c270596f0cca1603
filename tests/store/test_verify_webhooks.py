"""VERIFY of webhooks: what our own code wrote is sound, and each rule names what a hand has broken."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, Executable, bindparam, delete, insert, text, update

from tests.store.broken import broken, hurt
from tests.store.made import accept_all, entry, job, rows, worker
from tests.store.receiving import found
from tests.store.test_deliveries import claimed, closing, receiver, recorded, refused
from worker.core.lifecycle import FAIL_DELIVERY
from worker.jobs.store import cancel, reclaim
from worker.store.clock import from_now, now
from worker.store.tables import jobs, workers
from worker.store.types import Id
from worker.webhooks.store import expire, redeliver
from worker.webhooks.store.tables import deliveries, delivery_attempts, events, receivers

NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass
class World:
    """A database with a delivery of each kind; `jobs`, `sent` and `told`: jobs, their deliveries and events by name."""

    engine: Engine
    mine: str
    jobs: dict[str, str] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    to: dict[str, str] = field(default_factory=dict)

    def end(self, **fields: dict[str, Any]) -> None:
        """Accept a job for each name, and end them in this order, a few at a time."""
        # In the order of their ids: they are numbered in it.
        self.jobs |= {name: str(uuid.UUID(int=number, version=4)) for number, name in enumerate(fields, 1)}
        accept_all(self.engine, *(entry(job(**one), id=self.jobs[name]) for name, one in fields.items()))
        ids = list(self.jobs.values())
        for first in range(0, len(ids), 4):
            with self.engine.begin() as connection:
                cancel.cancel(connection, ids[first:][:4])
        names = {job_id: name for name, job_id in self.jobs.items()}
        for row in rows(self.engine, "SELECT id, job_id, event_id FROM afterword_deliveries"):
            name = names[str(row.job_id)]
            self.sent[name], self.told[name] = str(row.id), str(row.event_id)


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine, worker(engine))
    made.to = {
        "usual": receiver(engine, "usual"),
        "ordered": receiver(engine, "ordered", is_default=False, ordering="per_key"),
        "strict": receiver(engine, "strict", is_default=False, ordering="per_key", on_exhausted="block"),
        "off": receiver(engine, "off", is_default=False, status="disabled", disabled_reason="operator"),
        "picky": receiver(engine, "picky", events=json.dumps(["job.completed"])),
    }
    # Before anybody listened, and what nobody is to hear of.
    with engine.begin() as connection:
        connection.execute(update(receivers).values(created_at=from_now(-60.0)))
    ordered, strict = ({"webhook": {"to": name}, "ordering_key": "k"} for name in ("ordered", "strict"))
    made.end(
        silent={"webhook": None}, done={}, first1=ordered, strict1=strict,
        untold={}, first2=ordered, strict2=strict, unregistered={"webhook": {"to": "nobody"}},
        first3=ordered, strict3=strict, flying={}, tried={},
        replayed={}, held={"webhook": {"to": "off"}}, brought={"webhook": {"url": "https://example.com/x"}},
    )  # fmt: skip
    _deliver(made)
    usual = found(engine, made.to["usual"])
    with engine.begin() as connection:
        redeliver.new_test(connection, usual)
        replay = text("INSERT INTO replay_v1 (id) VALUES (:id)")
        connection.execute(replay.bindparams(bindparam("id", made.jobs["replayed"], Id)))
    return made


def _deliver(made: World) -> None:
    names = ("done", "flying", "tried", "first1", "strict1")
    got = dict(zip(names, claimed(made.engine, made.mine, *(made.sent[name] for name in names)), strict=True))
    done, tried, first, strict = got["done"], got["tried"], got["first1"], got["strict1"]
    assert done and tried and first and strict
    recorded(made.engine, closing(done), closing(first), refused(tried, delay_s=60.0))
    recorded(made.engine, refused(strict, move=FAIL_DELIVERY))


def test_what_our_own_code_wrote_of_webhooks_is_sound(world: World) -> None:
    assert broken(world.engine) == {}
    stands = {str(row.id): row.status for row in rows(world.engine, "SELECT * FROM webhook_deliveries_v1")}
    assert {name: stands[one] for name, one in world.sent.items()} == {
        "done": "delivered", "untold": "queued", "flying": "in_progress", "tried": "queued", "replayed": "queued",
        "first1": "delivered", "first2": "queued", "first3": "queued", "strict1": "failed", "strict2": "queued",
        "strict3": "queued", "held": "held", "unregistered": "held", "brought": "queued",
    }  # fmt: skip


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
    """Tell an end a second time."""
    told, sent = str(uuid.uuid4()), str(uuid.uuid4())
    event = {"id": told, "job_id": w.jobs[name], "tenant": "default", "type": "job.cancelled", "thin": b"{}"}
    delivery = {
        "id": sent, "event_id": told, "receiver_id": w.to["usual"], "job_id": w.jobs[name], "tenant": "default",
        "event_type": "job.cancelled", "status": "queued", "variant": "thin", "origin": "event", "sequence": 1,
    }  # fmt: skip
    return [
        insert(events).values(created_at=now(), **event | values),
        insert(deliveries).values(created_at=now(), run_at=now(), deadline=from_now(60.0), **delivery),
    ]


def untell(w: World, name: str) -> list[Executable]:
    return [
        delete(deliveries).where(deliveries.c.id == w.sent[name]), delete(events).where(events.c.id == w.told[name]),
    ]  # fmt: skip


Hand = Callable[[World], list[Executable]]
# Whose: the job, the delivery or the event of a name, or a receiver.
WEBHOOK_BREAKS: list[tuple[str, str, Hand]] = [
    ("ends_are_told", "jobs untold", lambda w: untell(w, "untold")),
    ("ends_are_told", "jobs first2", lambda w: untell(w, "first2")),
    ("ends_are_told", "jobs unregistered", lambda w: untell(w, "unregistered")),
    ("ends_are_told_once", "jobs done", lambda w: another_event(w, "done")),
    ("events_are_delivered", "told untold", lambda w: [delete(deliveries).where(deliveries.c.id == w.sent["untold"])]),
    ("events_have_a_job", "told done", lambda w: [delete(jobs).where(jobs.c.id == w.jobs["done"])]),
    ("events_have_a_job", "told done", lambda w: [event_of(w.told["done"], job_id=None)]),
    ("events_have_a_job", "told done", lambda w: [event_of(w.told["done"], type="receiver.test")]),
    ("events_tell_an_end", "told done", lambda w: [event_of(w.told["done"], type="job.failed")]),
    ("events_tell_an_end", "told done", lambda w: [job_of(w.jobs["done"], status="queued", finished_at=None)]),
    ("events_tell_an_end", "told replayed", lambda w: [
        job_of(w.jobs["replayed"], status="failed", finished_at=from_now(-60.0))
    ]),
    ("bodies_are_of_their_job", "told done", lambda w: [event_of(w.told["done"], thin=b"not json")]),
    ("bodies_are_of_their_job", "told done", lambda w: [event_of(w.told["done"], full=b'["a list"]')]),
    ("bodies_are_of_their_job", "told done", lambda w: [event_of(w.told["done"], job_id=w.jobs["untold"])]),
    ("bodies_are_of_their_job", "told done", lambda w: [event_of(w.told["done"], type="job.failed")]),
    ("bodies_are_of_their_job", "told done", lambda w: [
        event_of(w.told["done"], openai=b'{"id": "evt_1", "type": "response.cancelled", "data": {}}')
    ]),
    ("deliveries_have_their_event", "sent untold", lambda w: [delete(events).where(events.c.id == w.told["untold"])]),
    ("deliveries_have_their_event", "sent untold", lambda w: [
        delete(receivers).where(receivers.c.id == w.to["usual"])
    ]),
    ("deliveries_have_their_event", "sent untold", lambda w: [of(w.sent["untold"], job_id=w.jobs["done"])]),
    ("deliveries_have_their_event", "sent untold", lambda w: [of(w.sent["untold"], tenant="another")]),
    ("deliveries_have_their_event", "sent untold", lambda w: [delete(jobs).where(jobs.c.id == w.jobs["untold"])]),
    ("deliveries_have_a_body", "sent untold", lambda w: [event_of(w.told["untold"], full=None)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [of(w.sent["tried"], attempt=2)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [another_attempt(w.sent["tried"], 3)]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [
        attempt_of(w.sent["tried"], attempt=2), of(w.sent["tried"], attempt=2)
    ]),
    ("delivery_attempts_are_numbered", "sent tried", lambda w: [of(w.sent["tried"], attempts_used=2)]),
    ("sending_worker_lives", "sent flying", lambda w: [delete(workers)]),
    ("sending_worker_lives", "sent untold", lambda w: [of(w.sent["untold"], worker_id=w.mine)]),
    ("sent_deliveries_have_an_open_attempt", "sent flying", lambda w: [
        attempt_of(w.sent["flying"], outcome="unknown", finished_at=now())
    ]),
    ("delivered_means_it_was_taken", "sent done", lambda w: [attempt_of(w.sent["done"], outcome="failed")]),
    ("delivered_means_it_was_taken", "sent done", lambda w: [attempt_of(w.sent["done"], sent_at=None)]),
    ("deliveries_have_a_start", "sent untold", lambda w: [of(w.sent["untold"], run_at=deliveries.c.deadline)]),
    ("delivery_deadline_is_kept", "sent untold", lambda w: [of(w.sent["untold"], deadline=from_now(-1.0))]),
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


@pytest.mark.parametrize(
    ("rule", "whose", "hand"), WEBHOOK_BREAKS, ids=[f"{n}-{one[0]}" for n, one in enumerate(WEBHOOK_BREAKS)]
)
def test_a_rule_of_webhooks_names_what_a_hand_has_broken(world: World, rule: str, whose: str, hand: Hand) -> None:
    kind, name = whose.split()
    expected = getattr(world, kind)[name]
    hurt(world.engine, *hand(world))

    offenders = broken(world.engine)

    assert rule in offenders, sorted(offenders)
    assert expected in {key for key, _ in offenders[rule].first}
    assert offenders[rule].broken == len(offenders[rule].first)


def test_ends_before_a_receiver_was_registered_or_changed_are_no_offence(world: World) -> None:
    late = receiver(world.engine, "late", tenant="b")
    accept_all(world.engine, entry({"request": {}, "tenant": "b"}))
    hurt(
        world.engine,
        delete(deliveries).where(deliveries.c.receiver_id == late),
        delete(events).where(events.c.tenant == "b"),
    )

    # No end beside it was told to that receiver: it may have wanted none of them.
    assert broken(world.engine) == {}


def test_a_replayed_job_has_an_event_for_each_of_its_ends(world: World) -> None:
    replayed = world.jobs["replayed"]
    with world.engine.begin() as connection:
        order = text("INSERT INTO cancel_v1 (id) VALUES (:id)")
        connection.execute(order.bindparams(bindparam("id", replayed, Id)))

    def settle(_: float) -> None:
        with world.engine.begin() as connection:
            assert cancel.apply_cancel_requests(connection, keep_s=60.0).cancelled == {replayed}

    assert broken(world.engine, pause=settle) == {}
    told = [row for row in rows(world.engine, "SELECT job_id FROM afterword_events") if str(row.job_id) == replayed]
    assert len(told) == 2


def test_a_delivery_whose_worker_is_gone_is_no_offence_once_it_was_taken_back(world: World) -> None:
    hurt(world.engine, update(workers).values(lease_until=from_now(-1.0)))

    def mend(_: float) -> None:
        with world.engine.begin() as connection:
            reclaim.take_back(connection)
            expire.take_back(connection)

    assert broken(world.engine, pause=mend) == {}
