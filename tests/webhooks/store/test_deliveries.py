"""Deliveries in SQL, on both databases: written with the end of a job, limited, fenced, ordered and taken back."""

import json
import threading
import time
import uuid
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, text, update

from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from tests.webhooks.store.delivery_attempts import (
    DELIVERIES,
    claimed,
    delivery_ids,
    delivery_record,
    ended,
    receiver,
    recorded,
    refused,
)
from worker.core.lifecycle import CANCEL_DELIVERY, FAIL_DELIVERY
from worker.jobs.store import cancel
from worker.store import leases
from worker.store.clock import from_now
from worker.webhooks.core.outcome import DisableReason
from worker.webhooks.core.receiver_health import Bucket, ReceiverHealth
from worker.webhooks.store import due as webhook_lanes
from worker.webhooks.store import expire, redeliver
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.health_column import health_of, text_of
from worker.webhooks.store.tables import deliveries, events, receivers


def claim_first(engine: Engine, worker_id: str) -> DeliveryClaim:
    (got,) = claimed(engine, worker_id, delivery_ids(engine)[0])
    assert got is not None
    return got


def test_the_end_of_a_job_writes_its_event_and_deliveries_in_one_transaction(engine: Engine) -> None:
    receiver(engine)
    job_id = str(uuid.uuid4())
    accept_all(engine, entry(id=job_id))

    with engine.connect() as connection:
        cancel.cancel(connection, [job_id])
        connection.rollback()
    assert delivery_ids(engine) == []
    with engine.begin() as connection:
        cancel.cancel(connection, [job_id])

    row = one(engine, DELIVERIES)
    assert (str(row.job_id), row.event_type, row.receiver, row.status) == (job_id, "job.cancelled", "mine", "queued")
    body = json.loads(bytes(one(engine, "SELECT thin FROM afterword_events").thin))
    assert (body["type"], body["data"]["id"], body["data"]["status"]) == ("job.cancelled", job_id, "cancelled")
    assert body["data"]["cursor"] == 1


@pytest.mark.parametrize(
    ("listens", "webhook", "names"),
    [
        ({}, ..., ["mine"]),
        ({}, None, []),
        ({"is_default": False}, ..., []),
        ({"is_default": False}, {"to": "mine"}, ["mine"]),
        ({}, {"to": "other"}, ["other"]),
        ({"tenant": "another"}, ..., []),
        ({"events": json.dumps(["job.completed"])}, ..., []),
        ({"events": json.dumps(["job.cancelled"])}, ..., ["mine"]),
        ({"status": "removed"}, ..., []),
    ],
    ids=["default", "nobody", "none", "named", "unknown", "tenant", "other event", "this event", "removed"],
)
def test_receivers_of_a_jobs_event(engine: Engine, listens: dict[str, Any], webhook: Any, names: list[str]) -> None:
    receiver(engine, **listens)

    ended(engine, **({} if webhook is ... else {"webhook": webhook}))

    assert [row.receiver for row in rows(engine, DELIVERIES)] == names


def test_a_url_named_by_jobs_is_one_receiver(engine: Engine) -> None:
    for _ in range(2):
        ended(engine, webhook={"url": "https://example.com/one"})
    ended(engine, webhook={"url": "https://example.com/two"})

    found = rows(engine, "SELECT name, url, keys_sealed FROM afterword_receivers ORDER BY url")
    assert [row.url for row in found] == ["https://example.com/one", "https://example.com/two"]
    assert all(row.name.startswith("url-") and row.keys_sealed is None for row in found)
    assert len(delivery_ids(engine)) == 3


def test_deliveries_to_an_unregistered_receiver_are_held(engine: Engine) -> None:
    ended(engine, webhook={"to": "later"})
    ended(engine, webhook={"to": "later"})

    row = one(engine, "SELECT status, disabled_reason, url FROM afterword_receivers")
    assert tuple(row) == ("disabled", "not_registered", "")
    assert [row.status for row in rows(engine, DELIVERIES)] == ["held", "held"]


def test_a_delivery_is_claimed_once_with_an_attempt_row_before_the_wire(engine: Engine) -> None:
    receiver(engine)
    ended(engine)
    first, second = worker(engine), worker(engine)

    got = claim_first(engine, first)

    assert claimed(engine, second, got.delivery_id) == [None]
    attempt = one(engine, "SELECT * FROM afterword_delivery_attempts")
    assert (attempt.attempt, attempt.outcome, attempt.origin) == (1, None, "event")
    assert attempt.sent_at is not None
    assert json.loads(got.body)["type"] == "job.cancelled"
    assert abs(got.now_s - got.event_at_s) < 60


def test_the_times_of_an_attempts_steps_are_kept(engine: Engine) -> None:
    receiver(engine)
    ended(engine)
    times = {"dns_ms": 1, "connect_ms": 20, "tls_ms": 15, "first_byte_ms": 30, "total_ms": 60}

    recorded(engine, delivery_record(claim_first(engine, worker(engine)), attempt={"is_truncated": False, **times}))

    attempt = one(engine, "SELECT dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms FROM afterword_delivery_attempts")
    assert dict(attempt._mapping) == times


def test_a_worker_whose_lease_has_ended_claims_nothing(engine: Engine) -> None:
    receiver(engine)
    ended(engine)

    assert claimed(engine, worker(engine, lease_s=-1), delivery_ids(engine)[0]) == [None]


def test_a_receivers_in_flight_limit_holds(engine: Engine) -> None:
    receiver(engine, in_flight=2)
    for _ in range(4):
        ended(engine)
    holder = worker(engine)

    got = [one for one in claimed(engine, holder, *delivery_ids(engine)) if one is not None]
    assert len(got) == 2
    assert not any(claimed(engine, holder, *delivery_ids(engine)))
    recorded(engine, delivery_record(got[0]))

    assert len([one for one in claimed(engine, holder, *delivery_ids(engine)) if one is not None]) == 1


def test_two_workers_never_exceed_a_receivers_limit_together(engine: Engine) -> None:
    receiver(engine, in_flight=3)
    for _ in range(12):
        ended(engine)
    ids, got = delivery_ids(engine), []

    def take(worker_id: str) -> None:
        for delivery_id in ids:
            got.extend(one for one in claimed(engine, worker_id, delivery_id) if one is not None)

    threads = [threading.Thread(target=take, args=(worker(engine),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 3


def test_a_rate_limits_the_claims_like_a_token_bucket(engine: Engine) -> None:
    receiver(engine, rate_per_s=2.0)
    for _ in range(5):
        ended(engine)

    got = claimed(engine, worker(engine), *delivery_ids(engine))

    assert len([one for one in got if one is not None]) == 2


def test_a_paused_or_disabled_receiver_is_sent_nothing(engine: Engine) -> None:
    receiver_id = receiver(engine)
    ended(engine)
    holder = worker(engine)
    resting = ReceiverHealth(ramp=1, open_until_s=4e9, open_s=30.0)

    for changes in ({"health": text_of(resting)}, {"status": "disabled", "health": None}):
        with engine.begin() as connection:
            connection.execute(update(receivers).where(receivers.c.id == receiver_id).values(changes))
        assert claimed(engine, holder, *delivery_ids(engine)) == [None]


def test_a_health_is_read_as_it_was_written_also_where_another_release_wrote_it() -> None:
    failing = ReceiverHealth(down_in_row=3, window=(Bucket(180, 4, 1), Bucket(181, 2, 2)), disabled=DisableReason.gone)
    assert health_of(text_of(failing)) == failing
    other = json.loads(text_of(failing)) | {"window_at_s": 7.0, "mood": "grim"}
    assert health_of(json.dumps(other)) == failing


def test_a_stale_attempt_moves_nothing_and_is_kept(engine: Engine) -> None:
    receiver(engine)
    ended(engine)
    lost, other = worker(engine), worker(engine)
    stale = claim_first(engine, lost)
    with engine.begin() as connection:
        leases.resign(connection, lost)
    with engine.begin() as connection:
        assert expire.take_back(connection) == 1
    fresh = claim_first(engine, other)

    (late,) = recorded(engine, refused(stale))

    assert not late.moved
    found = rows(engine, "SELECT attempt, outcome, http_status FROM afterword_delivery_attempts ORDER BY attempt")
    assert [tuple(row) for row in found] == [(1, "failed", 503), (2, None, None)]
    assert recorded(engine, delivery_record(fresh))[0].moved


def test_a_late_success_counts_if_no_attempt_has_begun_since(engine: Engine) -> None:
    receiver(engine)
    ended(engine)
    lost = worker(engine)
    late = claim_first(engine, lost)
    with engine.begin() as connection:
        leases.resign(connection, lost)
    with engine.begin() as connection:
        expire.take_back(connection)

    assert recorded(engine, delivery_record(late))[0].moved
    assert one(engine, DELIVERIES).status == "delivered"


def test_a_lost_attempt_is_unknown_and_spends_the_schedule(engine: Engine) -> None:
    receiver(engine, schedule=json.dumps([1]))
    ended(engine)
    for _ in range(2):
        lost = worker(engine)
        claim_first(engine, lost)
        with engine.begin() as connection:
            leases.resign(connection, lost)
        with engine.begin() as connection:
            expire.take_back(connection)

    assert one(engine, DELIVERIES).status == "failed"
    outcomes = rows(engine, "SELECT outcome, error_code FROM afterword_delivery_attempts")
    assert [tuple(row) for row in outcomes] == [("unknown", "worker_lost")] * 2


def test_failures_open_the_breaker_in_the_receivers_row(engine: Engine) -> None:
    receiver_id = receiver(engine)
    for _ in range(5):
        ended(engine)
    holder = worker(engine)
    got = [one for one in claimed(engine, holder, *delivery_ids(engine)) if one is not None]

    written = recorded(engine, *(refused(one) for one in got))

    row = one(engine, "SELECT * FROM afterword_receivers WHERE id = :id", id=receiver_id)
    after = health_of(row.health if isinstance(row.health, str) else json.dumps(row.health))
    assert after.ramp == 1
    assert after.open_until_s > time.time()
    assert written[-1].after == after
    # Each record returns its own step, so the pause is reported once.
    opened = [one.before is not None and one.after is not None and one.before.ramp < one.after.ramp for one in written]
    assert opened == [False] * 4 + [True]
    assert rows(engine, "SELECT 1 FROM webhook_deliveries_v1 WHERE status = 'failed'") == []


def test_later_deliveries_of_a_key_wait_without_being_due(engine: Engine) -> None:
    receiver_id = receiver(engine, ordering="per_key")
    for _ in range(3):
        ended(engine, ordering_key="k")
    ended(engine, ordering_key="other")
    holder = worker(engine)

    with engine.begin() as connection:
        due = webhook_lanes.due(connection, {receiver_id: 10})[receiver_id]
    assert len(due) == 2
    waiting = rows(engine, "SELECT sequence FROM webhook_deliveries_v1 WHERE waiting_for = 'order' ORDER BY sequence")
    assert [row.sequence for row in waiting] == [2, 3]
    assert len([one for one in claimed(engine, holder, *delivery_ids(engine)) if one is not None]) == 2


def test_the_end_of_a_delivery_lets_the_next_go(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    for _ in range(3):
        ended(engine, ordering_key="k")
    first = claim_first(engine, worker(engine))

    (after,) = recorded(engine, delivery_record(first))

    states = rows(engine, "SELECT id, sequence, waiting_for FROM webhook_deliveries_v1 ORDER BY sequence")
    assert [row.waiting_for for row in states] == [None, None, "order"]
    assert after.next_ids == (str(states[1].id),)


@pytest.mark.parametrize(("policy", "goes", "gap"), [("skip", True, True), ("block", False, False)])
def test_on_exhausted_decides_about_the_delivery_after_a_failed_one(
    engine: Engine, policy: str, goes: bool, gap: bool
) -> None:
    receiver(engine, ordering="per_key", on_exhausted=policy)
    for _ in range(2):
        ended(engine, ordering_key="k")
    first = claim_first(engine, worker(engine))

    recorded(engine, refused(first, move=FAIL_DELIVERY))

    second = one(engine, "SELECT waiting_for, after_gap FROM afterword_deliveries WHERE sequence = 2")
    assert (second.waiting_for is None, bool(second.after_gap)) == (goes, gap)
    ended(engine, ordering_key="k")
    third = one(engine, "SELECT waiting_for FROM afterword_deliveries WHERE sequence = 3")
    assert third.waiting_for == "order"


def test_jobs_that_end_together_keep_the_order_of_their_ends(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    ids = [str(uuid.uuid4()) for _ in range(5)]
    accept_all(engine, *(entry(job(ordering_key="k"), id=one) for one in ids))

    with engine.begin() as connection:
        cancel.cancel(connection, ids)

    found = rows(
        engine,
        "SELECT d.sequence, f.cursor FROM afterword_deliveries d JOIN afterword_finished f ON f.job_id = d.job_id "
        "ORDER BY d.sequence",
    )
    assert [row.sequence for row in found] == [1, 2, 3, 4, 5]
    assert [row.cursor for row in found] == sorted(row.cursor for row in found)


def test_deliveries_to_a_disabled_receiver_are_held(engine: Engine) -> None:
    receiver_id = receiver(engine)
    ended(engine)
    with engine.begin() as connection:
        connection.execute(update(receivers).where(receivers.c.id == receiver_id).values(status="disabled"))
    ended(engine)

    with engine.begin() as connection:
        (lane,), _ = webhook_lanes.lanes(connection)
        assert lane.free is None
        expire.hold_or_drop(connection, lane)

    assert [row.status for row in rows(engine, DELIVERIES)] == ["held", "held"]


def test_a_delivery_past_its_deadline_fails_and_lets_the_next_go(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    for _ in range(2):
        ended(engine, ordering_key="k")
    with engine.begin() as connection:
        past = update(deliveries).where(deliveries.c.sequence == 1)
        connection.execute(past.values(deadline=from_now(-1)))
        assert expire.give_up(connection) == 1

    states = rows(engine, "SELECT status, last_error_code, waiting_for FROM webhook_deliveries_v1 ORDER BY sequence")
    assert [tuple(row) for row in states] == [("failed", "deadline", None), ("queued", None, None)]


def test_lanes_give_the_free_room_of_each_receiver(engine: Engine) -> None:
    free, busy = receiver(engine, "free", in_flight=7), receiver(engine, "busy", in_flight=1)
    for _ in range(2):
        ended(engine)
    holder = worker(engine)
    mine = text("SELECT id FROM afterword_deliveries WHERE receiver_id = :id LIMIT 1")
    with engine.connect() as connection:
        delivery_id = str(connection.execute(mine, {"id": busy}).scalar())
    assert claimed(engine, holder, delivery_id)[0] is not None

    with engine.begin() as connection:
        lanes, after = webhook_lanes.lanes(connection)

    assert {lane.receiver_id: lane.free for lane in lanes} == {free: 7, busy: 0}
    assert after == webhook_lanes.FIRST


def test_a_claim_on_a_job_never_reads_a_delivery(engine: Engine) -> None:
    receiver(engine)
    ended(engine)

    assert claim_one(engine, worker(engine), delivery_ids(engine)[0]) is None


def test_a_redelivery_lets_no_delivery_pass_a_failed_one(engine: Engine) -> None:
    receiver(engine, ordering="per_key", on_exhausted="block")
    for _ in range(3):
        ended(engine, ordering_key="k")
    holder = worker(engine)
    first, second, third = delivery_ids(engine)
    recorded(engine, delivery_record(claim_first(engine, holder)))
    (got,) = claimed(engine, holder, second)
    assert got is not None
    recorded(engine, refused(got, move=FAIL_DELIVERY))

    with engine.begin() as connection:
        assert redeliver.redeliver(connection, first) is None
    (again,) = claimed(engine, holder, first)
    assert again is not None
    (after,) = recorded(engine, delivery_record(again))

    assert after.next_ids == ()
    assert claimed(engine, holder, third) == [None]


def test_a_failed_delivery_that_is_sent_again_still_blocks_later_ones(engine: Engine) -> None:
    receiver(engine, ordering="per_key", on_exhausted="block")
    ended(engine, ordering_key="k")
    holder = worker(engine)
    recorded(engine, refused(claim_first(engine, holder), move=FAIL_DELIVERY))
    (first,) = delivery_ids(engine)
    with engine.begin() as connection:
        assert redeliver.redeliver(connection, first) is None
    (again,) = claimed(engine, holder, first)
    assert again is not None

    ended(engine, ordering_key="k")
    second = delivery_ids(engine)[1]
    assert claimed(engine, holder, second) == [None]
    (after,) = recorded(engine, delivery_record(again))

    assert after.next_ids == (second,)


def test_a_cancelled_delivery_does_not_block_a_waiting_one(engine: Engine) -> None:
    receiver(engine, ordering="per_key", on_exhausted="block")
    for _ in range(2):
        ended(engine, ordering_key="k")

    (after,) = recorded(engine, refused(claim_first(engine, worker(engine)), move=CANCEL_DELIVERY))

    assert after.next_ids == (delivery_ids(engine)[1],)


def test_a_delivery_given_up_while_it_waited_is_a_gap_too(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    for _ in range(3):
        ended(engine, ordering_key="k")
    first = claim_first(engine, worker(engine))
    with engine.begin() as connection:
        connection.execute(update(deliveries).where(deliveries.c.sequence == 2).values(deadline=from_now(-1)))
        assert expire.give_up(connection) == 1

    recorded(engine, delivery_record(first))

    third = one(engine, "SELECT waiting_for, after_gap FROM afterword_deliveries WHERE sequence = 3")
    assert (third.waiting_for, bool(third.after_gap)) == (None, True)


def test_the_end_of_a_delivery_returns_the_next_ones(engine: Engine) -> None:
    receiver(engine, in_flight=2)
    for _ in range(5):
        ended(engine)
    running = [one for one in claimed(engine, worker(engine), *delivery_ids(engine)) if one is not None]
    waiting = {row.id for row in rows(engine, DELIVERIES) if row.status == "queued"}

    written = recorded(engine, *(delivery_record(one) for one in running))

    following = [one for record in written for one in record.next_ids]
    assert len(set(following)) == 2
    assert set(following) <= {str(one) for one in waiting}


def test_a_tenant_takes_no_more_than_half_of_a_workers_slots(engine: Engine) -> None:
    for name in ("one", "two", "three"):
        receiver(engine, name, tenant="slow")
    receiver(engine, "well")
    for _ in range(10):
        ended(engine, tenant="slow")
    holder = worker(engine)
    slow = delivery_ids(engine)

    got = [one for one in claimed(engine, holder, *slow, slots=8) if one is not None]
    assert 3 <= len(got) <= 4
    assert set(Counter(one.receiver_id for one in got).values()) <= {1, 2}
    # Another worker has its own slots.
    assert any(claimed(engine, worker(engine), *slow, slots=8))

    ended(engine)
    assert claimed(engine, holder, delivery_ids(engine)[-1], slots=8)[0] is not None


def test_the_last_slot_goes_round_among_the_waiting_receivers(engine: Engine) -> None:
    names = [receiver(engine, name) for name in ("one", "two", "three")]
    for _ in range(4):
        ended(engine)
    holder, went = worker(engine), []
    next_id = delivery_ids(engine)[0]

    for _ in range(6):
        (got,) = claimed(engine, holder, next_id, slots=1)
        assert got is not None
        went.append(got.receiver_id)
        (after,) = recorded(engine, delivery_record(got), slots=1)
        (next_id,) = after.next_ids

    assert Counter(went) == dict.fromkeys(names, 2)


def test_the_last_slot_goes_to_no_receiver_that_is_paused_full_or_without_due_deliveries(engine: Engine) -> None:
    resting = ReceiverHealth(ramp=1, open_until_s=4e9, open_s=30.0)
    mine = receiver(engine)
    receiver(engine, "resting", health=text_of(resting))
    receiver(engine, "off", status="disabled")
    receiver(engine, "full", in_flight=0)
    later = receiver(engine, "later")
    for _ in range(3):
        ended(engine)
    with engine.begin() as connection:
        connection.execute(update(deliveries).where(deliveries.c.receiver_id == later).values(run_at=from_now(60)))
        of_mine = connection.scalars(select(deliveries.c.id).where(deliveries.c.receiver_id == mine)).all()
    (got,) = claimed(engine, worker(engine), of_mine[0], slots=1)
    assert got is not None

    (after,) = recorded(engine, delivery_record(got), slots=1)

    assert set(after.next_ids) < set(of_mine)


def test_a_delivery_without_its_event_delays_no_other_claim(engine: Engine) -> None:
    receiver(engine)
    gone_of, empty_of, fine_of = ended(engine), ended(engine), ended(engine)
    of = {str(row.job_id): str(row.id) for row in rows(engine, DELIVERIES)}
    with engine.begin() as connection:
        connection.execute(delete(events).where(events.c.job_id == gone_of))
        connection.execute(update(events).where(events.c.job_id == empty_of).values(full=None))

    got = claimed(engine, worker(engine), *(of[job_id] for job_id in (gone_of, empty_of, fine_of)))

    assert [one is not None and one.body is None for one in got] == [True, True, False]


@pytest.mark.parametrize("follower", ["before", "after"])
def test_a_cancelled_delivery_blocks_no_later_one(engine: Engine, follower: str) -> None:
    receiver(engine, ordering="per_key", on_exhausted="block")
    ended(engine, ordering_key="k")
    if follower == "before":
        ended(engine, ordering_key="k")
    got = claim_first(engine, worker(engine))

    recorded(engine, refused(got, move=CANCEL_DELIVERY))

    if follower == "after":
        ended(engine, ordering_key="k")
    second = rows(engine, DELIVERIES)[1]
    assert (second.status, second.waiting_for, second.sequence) == ("queued", None, 2)
