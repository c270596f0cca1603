"""Slots are counted per queue by the tasks that really run, and are refilled at once."""

from tests.pool.workers import Toy


def test_a_freed_slot_is_refilled_at_once_and_never_more_than_that(toy: Toy) -> None:
    toy.start(SLOTS="3")
    rows = [toy.row(do="gate", gate=f"gate:{number}") for number in range(12)]
    toy.push(*rows)

    toy.await_events("start", 3)
    for number in range(12):
        assert len(toy.events("start")) == min(number + 3, 12)
        toy.open(f"gate:{number}")
        toy.await_events("end", number + 1)
        toy.await_events("start", min(number + 4, 12))

    assert {entry["row"] for entry in toy.events("start")} == set(rows)


def test_tasks_run_in_as_many_rounds_as_slots_demand(toy: Toy) -> None:
    toy.start(SLOTS="5")
    toy.push(*(toy.row(seconds=0.05) for _ in range(50)))
    toy.await_events("end", 50)

    running = peak = 0
    for entry in toy.log():
        running += {"start": 1, "end": -1}.get(entry["event"], 0)
        peak = max(peak, running)
    assert peak == 5


def test_full_slots_of_one_queue_do_not_hold_up_the_other(toy: Toy) -> None:
    toy.start(SLOTS="2", WEBHOOK_SLOTS="1")
    toy.push(*(toy.row(do="gate", gate="gate") for _ in range(4)))
    toy.await_events("start", 2)

    toy.push(*(toy.row() for _ in range(3)), queue="webhooks")

    toy.await_events("end", 3)
    assert len(toy.events("start")) == 5
    toy.open("gate")
    toy.await_events("end", 7)


def test_a_queue_is_read_only_as_far_as_its_slots_are_free(toy: Toy) -> None:
    toy.start(SLOTS="2", WEBHOOK_SLOTS="1")
    toy.push(*(toy.row(do="gate", gate="gate") for _ in range(7)))
    toy.push(*(toy.row(gate="gate") for _ in range(4)), queue="webhooks")
    toy.await_events("start", 3)

    assert toy.redis.llen("chat.run\x06\x165") == 5
    assert toy.redis.llen("webhooks\x06\x165") == 3


def test_a_task_that_runs_is_not_started_a_second_time(toy: Toy) -> None:
    toy.start()
    row, other = toy.row(do="gate", gate="gate"), toy.row()
    toy.push(row)
    toy.await_events("start", 1)

    toy.push(row, row)
    toy.push(other)

    toy.await_events("end", 1)
    assert [entry["row"] for entry in toy.events("start")] == [row, other]


def test_roles_are_picked_by_queue(toy: Toy) -> None:
    toy.start("-Q", "webhooks")
    toy.push(toy.row())
    toy.push(toy.row(), queue="webhooks")

    toy.await_events("end", 1)
    assert toy.redis.llen("chat.run\x06\x165") == 1
