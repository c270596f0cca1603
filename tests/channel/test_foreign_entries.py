"""Foreign bytes are data: nothing in the queues or on the control exchange stops, restarts or slows a worker."""

import json

import pytest
from celery import Celery
from celery.worker.control import Panel

from tests.channel.entries import BAD, ODD, ROW, encoded
from tests.pool.workers import Toy, until
from worker.nudge import Rejected, read


@pytest.mark.parametrize("queue", ["chat.run", "webhooks"])
def test_no_entry_stops_or_restarts_a_worker_and_good_ones_around_run(toy: Toy, queue: str) -> None:
    child = toy.start(SLOTS="2")
    bad = [entry for _, entry, _ in BAD if isinstance(read(queue, entry), Rejected)]
    good = []
    for entry in bad:
        good.append(toy.row())
        toy.push(good[-1], queue=queue)
        toy.redis.lpush(f"{queue}\x06\x165", entry)
    good.append(toy.row())
    toy.push(good[-1], queue=queue)

    toy.await_events("end", len(good))

    assert {entry["row"] for entry in toy.events("end")} == set(good)
    until(lambda: len(toy.rejected()) == len(bad), what="all rejects")
    assert sorted(told["reason"] for told in toy.rejected()) == sorted(read(queue, entry).reason for entry in bad)
    assert {told["queue"] for told in toy.rejected()} == {queue}
    assert_untroubled(toy, child.text())


def test_messages_that_are_odd_where_nobody_looks_run(toy: Toy) -> None:
    child = toy.start()
    for _, message in ODD:
        toy.redis.lpush("chat.run", encoded(message))

    toy.await_events("end", len(ODD))

    assert {entry["row"] for entry in toy.events("end")} == {ROW}
    assert_untroubled(toy, child.text())


def test_more_rubbish_than_slots_does_not_hide_what_stands_behind_it(toy: Toy) -> None:
    toy.start(SLOTS="1")
    toy.redis.lpush("chat.run", *([b"rubbish"] * 5000))
    row = toy.row()
    toy.push(row, priority=9)

    toy.await_events("end", 1)

    until(lambda: toy.redis.llen("afterword:rejected") == 5000, what="all rejects")


def test_a_bare_celery_client_may_nudge_and_better_priorities_start_first(toy: Toy) -> None:
    client = Celery(broker=toy.url, set_as_current=False)
    client.conf.broker_transport_options = {"priority_steps": list(range(10))}
    order = [9, 4, 0, 5, 1, 8, 2, 7, 3, 6]
    sent = {
        priority: client.send_task("chat.run", args=[toy.row()], queue="chat.run", priority=priority).id
        for priority in order
    }
    client.close()

    toy.start(SLOTS="1")
    toy.await_events("end", 10)

    assert [entry["id"] for entry in toy.events("start")] == [sent[priority] for priority in range(10)]


def test_the_intake_queue_is_left_to_the_intake(toy: Toy) -> None:
    client = Celery(broker=toy.url, set_as_current=False)
    client.send_task("chat.submit", args=[{}], queue="chat.intake")
    client.close()
    toy.start()
    toy.push(toy.row())

    toy.await_events("end", 1)

    assert toy.redis.llen("chat.intake") == 1


CONTROL = [b"", b"[]", b"null", b"{", b'"x"', b"7", b"\xff", b'{"properties": 5}', b'{"body": 1, "properties": {}}'] + [
    json.dumps(message).encode()
    for message in [
        {"body": "%%%", "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}}},
        {"body": "W10=", "properties": {"body_encoding": "base64", "delivery_tag": "x"}, "content-type": 5},
        {"body": "W10=", "properties": {"body_encoding": {}, "delivery_tag": []}, "headers": []},
        {"body": "W10=", "properties": {"body_encoding": "base64", "delivery_tag": "x"}, "content-encoding": "utf-8",
         "content-type": "application/json", "headers": {"clock": "late"}},
    ]
]  # fmt: skip


def test_nothing_published_on_the_control_exchange_stops_or_restarts_a_worker(toy: Toy) -> None:
    child = toy.start()
    for message in CONTROL:
        assert toy.redis.publish("/0.afterword.pidbox", message) == 1

    # Celery opens its mailbox anew after some of these; what is sent in that moment is lost, as broadcasts may be.
    until(lambda: toy.app.control.ping(timeout=1, limit=1), what="an answer to ping")
    assert_unbroken(toy, child.text())


def test_of_remote_control_only_inspection_and_revocation_are_obeyed(toy: Toy) -> None:
    commands = {name for name, command in Panel.meta.items() if command.type == "control"} - {"revoke", "terminate"}
    assert {"shutdown", "pool_shrink", "cancel_consumer", "rate_limit", "time_limit"} <= commands
    child = toy.start()
    for command in sorted(commands):
        toy.app.control.broadcast(command)
    until(lambda: child.text().count("pidbox command error: KeyError") == len(commands), what="all refusals")

    toy.push(toy.row())

    toy.await_events("end", 1)
    assert not child.ended()
    assert toy.inspected("active") is not None


def test_the_queues_a_worker_reads_can_be_inspected(toy: Toy) -> None:
    toy.start("-Q", "chat.run")

    [queues] = toy.inspected("active_queues").values()

    assert [queue["name"] for queue in queues] == ["chat.run"]


def assert_untroubled(toy: Toy, text: str) -> None:
    assert "Traceback" not in text
    assert_unbroken(toy, text)


def assert_unbroken(toy: Toy, text: str) -> None:
    assert len(toy.events("ready")) == 1
    assert "Connection to broker lost" not in text
    assert "window.unreadable" not in text
