"""Celery's promises about tasks hold for async tasks in a real worker."""

import json
import subprocess
import sys

import pytest

from tests.pool.workers import ROOT, UVLOOP, Toy


def test_a_thousand_tasks_run_at_once_in_one_process(toy: Toy) -> None:
    toy.start(SLOTS="1000")
    toy.push(*(toy.row(do="gate", gate="gate") for _ in range(1000)))

    toy.await_events("start", 1000)
    assert toy.events("end") == []

    toy.open("gate")
    toy.await_events("end", 1000)


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=UVLOOP)])
def test_celery_signals_fire_in_order_around_an_async_task(toy: Toy, loop: str) -> None:
    toy.start(SIGNALS="1", LOOP=loop)
    row = toy.row()
    [celery_id] = toy.push(row)
    toy.await_events("task_postrun", 1)

    story = [entry["event"] for entry in toy.log() if celery_id == entry.get("id") or row == entry.get("row")]
    assert story == ["task_received", "task_prerun", "start", "end", "task_success", "task_postrun"]
    assert toy.events("task_postrun")[0] == {
        "event": "task_postrun", "id": celery_id, "state": "SUCCESS", "retval": row
    }  # fmt: skip


def test_request_and_current_task_are_each_tasks_own_also_in_its_child_tasks(toy: Toy) -> None:
    toy.start()
    rows = [toy.row(do="children") for _ in range(10)]
    ids = toy.push(*rows)
    toy.await_events("end", 10)

    of = dict(zip(rows, ids, strict=True))
    assert all(entry["id"] == entry["current"] == of[entry["row"]] for entry in toy.events("start"))
    assert all(entry["ids"] == [of[entry["row"]]] * 3 for entry in toy.events("children"))


def test_a_synchronous_task_runs_beside_the_loop(toy: Toy) -> None:
    toy.start()
    held = toy.row(gate="held")
    [sync_id] = toy.push(held, queue="webhooks")
    toy.await_events("start", 1)
    assert toy.events("start")[0]["id"] == toy.events("start")[0]["current"] == sync_id

    toy.push(toy.row())
    toy.await_events("end", 1)

    toy.open("held")
    toy.await_events("end", 2)
    assert toy.events("end")[1]["row"] == held


def test_a_task_that_raises_is_a_failure_and_nothing_more(toy: Toy) -> None:
    child = toy.start(SIGNALS="1", SLOTS="1")
    toy.push(toy.row(do="raise"))
    toy.push(toy.row())

    toy.await_events("end", 1)
    assert toy.events("task_failure")[0]["exception"] == "as told"
    assert not child.ended()


def test_a_task_that_exits_ends_neither_the_loop_nor_the_worker(toy: Toy) -> None:
    child = toy.start(SIGNALS="1", SLOTS="1")
    toy.push(toy.row(do="exit"))
    toy.push(toy.row())

    toy.await_events("end", 1)
    toy.await_events("task_failure", 1)
    assert "SystemExit(3)" in toy.events("task_failure")[0]["exception"]
    assert not child.ended()


def test_inspect_active_shows_the_running_tasks(toy: Toy) -> None:
    toy.start()
    ids = toy.push(*(toy.row(do="gate", gate="gate") for _ in range(2)))
    toy.await_events("start", 2)

    command = [sys.executable, "-m", "celery", "-A", "tests.pool.toy", "inspect", "active", "--json"]
    shown = subprocess.run(
        command, cwd=ROOT, env={**toy.environment(), "PYTHONWARNINGS": "ignore"}, capture_output=True, check=True
    )

    [tasks] = json.loads(shown.stdout).values()
    assert sorted(task["id"] for task in tasks) == sorted(ids)
    assert {task["name"] for task in tasks} == {"chat.run"}


def test_the_pool_reports_its_slots_and_the_loops_last_tick(toy: Toy) -> None:
    toy.start(SLOTS="4")
    toy.push(toy.row(do="gate", gate="gate"))
    toy.await_events("start", 1)

    [stats] = toy.inspected("stats").values()

    assert stats["pool"]["queues"]["chat.run"] == {"active": 1, "free": 3}
    assert stats["pool"]["max-concurrency"] == 4
    assert 0 <= stats["pool"]["loop-ticked-s-ago"] < 5
