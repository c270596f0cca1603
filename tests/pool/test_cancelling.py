"""Every way to cancel a running task, and the reason that its body gets."""

from tests.pool.workers import Toy


def test_revoking_cancels_a_running_task_and_frees_its_slot(toy: Toy) -> None:
    toy.start(SLOTS="2", SIGNALS="1")
    first, second, waiting = (toy.row(do="gate", gate="gate") for _ in range(3))
    ids = toy.push(first, second, waiting)
    toy.await_events("start", 2)

    toy.app.control.revoke(ids[0], terminate=True)

    assert toy.await_events("cancelled", 1) == [{"event": "cancelled", "row": first, "reason": "revoked"}]
    toy.await_events("start", 3)
    assert toy.events("start")[2]["row"] == waiting
    assert [entry["id"] for entry in toy.events("task_revoked")] == [ids[0]]

    toy.open("gate")
    toy.await_events("end", 2)
    assert {entry["row"] for entry in toy.events("end")} == {second, waiting}


def test_revoking_without_terminate_cancels_a_running_task_too(toy: Toy) -> None:
    toy.start()
    [celery_id] = toy.push(toy.row(do="gate", gate="gate"))
    toy.await_events("start", 1)

    toy.app.control.revoke(celery_id)

    toy.await_events("cancelled", 1)


def test_a_slot_is_held_until_a_revoked_body_has_put_its_job_away(toy: Toy) -> None:
    toy.start(SLOTS="1")
    slow, next_one = toy.row(do="gate", gate="gate", swallow=0.3), toy.row()
    ids = toy.push(slow, next_one)
    toy.await_events("start", 1)

    toy.app.control.revoke(ids[0], terminate=True)

    toy.await_events("start", 2)
    story = [(entry["event"], entry["row"]) for entry in toy.log() if "row" in entry]
    assert story.index(("put away", slow)) < story.index(("start", next_one))


def test_a_nudge_revoked_before_it_is_read_never_starts_and_costs_no_slot(toy: Toy) -> None:
    toy.start(SLOTS="1", SIGNALS="1")
    toy.push(toy.row(do="gate", gate="gate"))
    toy.await_events("start", 1)
    revoked, after = toy.row(), toy.row()
    ids = toy.push(revoked, after)

    toy.app.control.revoke(ids[0], reply=True, timeout=10, limit=1)
    toy.open("gate")

    toy.await_events("end", 2)
    assert revoked not in {entry["row"] for entry in toy.events("start")}
    assert toy.events("task_revoked")[0]["id"] == ids[0]


def test_no_slot_is_lost_in_a_hundred_revocations(toy: Toy) -> None:
    toy.start(SLOTS="20")
    for wave in range(5):
        ids = toy.push(*(toy.row(do="gate", gate="never") for _ in range(20)))
        toy.await_events("start", 20 * (wave + 1))
        toy.app.control.revoke(ids, terminate=True)
        toy.await_events("cancelled", 20 * (wave + 1))

    toy.push(*(toy.row(do="gate", gate="never") for _ in range(30)))

    toy.await_events("start", 120)
    [stats] = toy.inspected("stats").values()
    assert stats["pool"]["queues"]["chat.run"] == {"active": 20, "free": 0}


def test_a_soft_limit_cancels_the_body_and_fails_the_task(toy: Toy) -> None:
    toy.start(SOFT="0.2", SIGNALS="1")
    toy.push(toy.row(do="gate", gate="never"))

    assert toy.await_events("cancelled", 1)[0]["reason"] == "soft_limit"
    assert "SoftTimeLimitExceeded" in toy.await_events("task_failure", 1)[0]["exception"]


def test_a_body_may_survive_its_soft_limit(toy: Toy) -> None:
    toy.start(SOFT="0.2", SIGNALS="1")
    toy.push(toy.row(do="gate", gate="never", swallow=0.01))

    toy.await_events("task_success", 1)
    assert toy.events("task_failure") == []


def test_aborting_cancels_all_calls_with_its_reason_and_revokes_none(toy: Toy) -> None:
    toy.start(SIGNALS="1")
    rows = [toy.row(do="gate", gate="never") for _ in range(3)]
    toy.push(*rows)
    toy.await_events("start", 3)

    toy.push(toy.row(do="abort", seconds=60))

    cancelled = toy.await_events("cancelled", 4)
    assert {entry["reason"] for entry in cancelled} == {"lease_lost"}
    toy.push(toy.row())
    toy.await_events("end", 1)
    assert toy.events("task_revoked") == toy.events("task_failure") == []


def test_a_body_is_cancelled_once_however_often_it_is_asked_for(toy: Toy) -> None:
    toy.start()
    [celery_id] = toy.push(toy.row(do="gate", gate="never", swallow=0.5))
    toy.await_events("start", 1)

    toy.app.control.revoke(celery_id, terminate=True)
    toy.await_events("cancelled", 1)
    toy.push(toy.row(do="abort"))

    toy.await_events("put away", 1)
    assert len([entry for entry in toy.events("cancelled") if entry["reason"] == "revoked"]) == 1


def test_a_synchronous_task_that_has_begun_is_not_stopped(toy: Toy) -> None:
    child = toy.start()
    [celery_id] = toy.push(toy.row(gate="gate"), queue="webhooks")
    toy.await_events("start", 1)

    toy.app.control.revoke(celery_id, terminate=True, reply=True, timeout=10, limit=1)
    toy.open("gate")

    toy.await_events("end", 1)
    assert "task.not_stopped" in child.text()
    assert not child.ended()
