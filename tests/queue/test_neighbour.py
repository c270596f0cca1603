"""We never touch other Celery applications on the same Redis database, and they never touch us."""

import subprocess
import sys

from celery import Celery

from tests.pool.workers import ROOT, Toy, until


def start_neighbour(toy: Toy) -> None:
    toy.start("-c", "2", "-P", "threads", "-n", "neighbour@%h", module="tests.queue.neighbour", ready=False)
    until(lambda: toy.redis.llen("neighbour:ready"), what="the neighbour's start")


def test_a_neighbours_late_acknowledged_task_starts_once_while_we_come_and_go(toy: Toy) -> None:
    start_neighbour(toy)
    neighbour = Celery("neighbour", broker=toy.url, set_as_current=False)
    neighbour.send_task("neighbour.long", args=["one"])
    until(lambda: toy.redis.llen("neighbour:starts") == 1, what="the neighbour's task")
    unacked = toy.redis.hgetall("unacked")
    assert len(unacked) == 1

    for _ in range(2):
        child = toy.start(SLOTS="3")
        done = len(toy.events("end"))
        toy.push(*(toy.row() for _ in range(20)))
        toy.await_events("end", done + 20)
        child.kill()

    assert toy.redis.hgetall("unacked") == unacked
    assert toy.redis.zcard("unacked_index") == 1
    toy.redis.set("neighbour:gate", 1)
    until(lambda: toy.redis.llen("neighbour:ends") == 1, what="the neighbour's end")
    until(lambda: not toy.redis.exists("unacked"), what="the neighbour's acknowledgement")
    assert toy.redis.llen("neighbour:starts") == 1
    neighbour.close()


def test_we_leave_no_keys_that_other_applications_use(toy: Toy) -> None:
    child = toy.start()
    toy.push(toy.row())
    toy.await_events("end", 1)

    keys = {key.decode() for key in toy.redis.keys("*")} - {"toy:log", "toy:parts"}

    assert {key for key in keys if "afterword" not in key} <= {"_kombu.binding_deadlines"}
    assert not child.ended()


def test_commands_to_all_of_a_neighbours_workers_do_not_reach_us(toy: Toy) -> None:
    child = toy.start()
    neighbour = Celery("neighbour", broker=toy.url, set_as_current=False)

    assert neighbour.control.ping(timeout=0.5) == []
    neighbour.control.shutdown()
    neighbour.close()

    toy.push(toy.row())
    toy.await_events("end", 1)
    assert not child.ended()


def test_our_inspection_does_not_ask_the_neighbours(toy: Toy) -> None:
    start_neighbour(toy)
    toy.start("-n", "ours@%h")

    command = [sys.executable, "-m", "celery", "-A", "tests.pool.toy", "inspect", "ping", "--json"]
    shown = subprocess.run(command, cwd=ROOT, env=toy.environment(), capture_output=True, check=True)

    assert b"ours@" in shown.stdout
    assert b"neighbour@" not in shown.stdout
