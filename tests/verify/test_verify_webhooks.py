"""VERIFY of webhooks: rows that our own code wrote are sound, and each rule reports its damage."""

import json

import pytest
from sqlalchemy import Engine, bindparam, delete, text, update

from tests.store.broken import broken, hurt
from tests.store.made import accept_all, entry, rows, worker
from tests.store.receiving import found
from tests.verify.webhook_breaks import WEBHOOK_BREAKS, Hand, World
from tests.webhooks.store.delivery_attempts import claimed, delivery_record, receiver, recorded, refused
from worker.core.lifecycle import FAIL_DELIVERY
from worker.jobs.store import cancel, reclaim
from worker.store.clock import from_now
from worker.store.tables import workers
from worker.store.types import Id
from worker.webhooks.store import expire, redeliver
from worker.webhooks.store.tables import deliveries, events, receivers


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
    # All receivers exist before the first job ends.
    with engine.begin() as connection:
        connection.execute(update(receivers).values(created_at=from_now(-60.0)))
    ordered, strict = ({"webhook": {"to": name}, "ordering_key": "k"} for name in ("ordered", "strict"))
    made.end(
        silent={"webhook": None}, done={}, first1=ordered, strict1=strict,
        unsent={}, first2=ordered, strict2=strict, unregistered={"webhook": {"to": "nobody"}},
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
    recorded(made.engine, delivery_record(done), delivery_record(first), refused(tried, delay_s=60.0))
    recorded(made.engine, refused(strict, move=FAIL_DELIVERY))


def test_webhook_rows_of_our_own_code_are_sound(world: World) -> None:
    assert broken(world.engine) == {}
    statuses = {str(row.id): row.status for row in rows(world.engine, "SELECT * FROM webhook_deliveries_v1")}
    assert {name: statuses[one] for name, one in world.sent.items()} == {
        "done": "delivered", "unsent": "queued", "flying": "in_progress", "tried": "queued", "replayed": "queued",
        "first1": "delivered", "first2": "queued", "first3": "queued", "strict1": "failed", "strict2": "queued",
        "strict3": "queued", "held": "held", "unregistered": "held", "brought": "queued",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "whose", "hand"), WEBHOOK_BREAKS, ids=[f"{n}-{one[0]}" for n, one in enumerate(WEBHOOK_BREAKS)]
)
def test_a_rule_of_webhooks_names_the_damaged_row(world: World, rule: str, whose: str, hand: Hand) -> None:
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

    # No other end of this tenant reached the receiver, so it may have subscribed to none.
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
    job_events = [
        row for row in rows(world.engine, "SELECT job_id FROM afterword_events") if str(row.job_id) == replayed
    ]
    assert len(job_events) == 2


def test_a_delivery_of_a_lost_worker_breaks_no_rule_once_it_was_taken_back(world: World) -> None:
    hurt(world.engine, update(workers).values(lease_until=from_now(-1.0)))

    def mend(_: float) -> None:
        with world.engine.begin() as connection:
            reclaim.take_back(connection)
            expire.take_back(connection)

    assert broken(world.engine, pause=mend) == {}
