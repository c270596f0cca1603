"""Foreign bytes are data: no entry in a queue or on the control exchange stops, restarts or slows a worker."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.worker.control import Panel

from tests.pool.workers import Toy, until
from tests.queue.entries import BAD, ODD, ROW, encoded
from worker.queue.nudges import Rejected, read


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
    assert sorted(reject["reason"] for reject in toy.rejected()) == sorted(read(queue, entry).reason for entry in bad)
    assert {reject["queue"] for reject in toy.rejected()} == {queue}
    assert_untroubled(toy, child.text())


def test_messages_that_are_odd_in_unread_parts_run(toy: Toy) -> None:
    child = toy.start()
    for _, message in ODD:
        toy.redis.lpush("chat.run", encoded(message))

    toy.await_events("end", len(ODD))

    assert {entry["row"] for entry in toy.events("end")} == {ROW}
    assert_untroubled(toy, child.text())


def test_more_rubbish_than_slots_does_not_hide_the_entries_behind_it(toy: Toy) -> None:
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


def control(**body: Any) -> bytes:
    """Return a broadcast with this body, as kombu's mailbox sends it."""
    text = json.dumps(
        {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None, **body}
    )
    properties = {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": ""}}
    return encoded({
        "body": base64.b64encode(text.encode()).decode(), "content-encoding": "utf-8",
        "content-type": "application/json", "headers": {"clock": 1, "expires": 0}, "properties": properties,
    })  # fmt: skip


# Messages that kombu or Celery parse before our code runs: name, message.
HOSTILE: list[tuple[str, bytes]] = [
    ("deep", b"[" * 100_000),
    ("deep and closed", b"[" * 100_000 + b"]" * 100_000),
    ("deep objects", b'{"a":' * 100_000),
    ("deep in the headers", control().replace(b'"headers": {', b'"headers": {"a": ' + b"[" * 50_000)),
    ("a body that is deep", encoded({"body": "[" * 100_000, "properties": {"delivery_tag": "x", "delivery_info": {}}})),
    ("10 MiB of text", b'"' + b"x" * 10 * 1024 * 1024 + b'"'),
    ("10 MiB of lists", b"[" + b"[]," * 3_500_000 + b"[]]"),
    ("10 MiB that is no UTF-8", b"\xff" * 10 * 1024 * 1024),
    ("40 MiB, more than Redis keeps for a listener", b"x" * 40 * 1024 * 1024),
    ("no UTF-8", b'{"body": "\xff"}'),
    ("a long number", b"9" * 10_000),
    ("no number", b"1e999999"),
    ("a lone surrogate", b'"\\ud800"'),
    ("a method that is a list", control(method=[1])),
    ("a method of Python's", control(method="__class__")),
    ("arguments a list", control(arguments=[1, 2])),
    ("arguments nobody takes", control(arguments={"self": 1, "state": 2})),
    ("destination a number", control(destination=5)),
    ("a pattern without an end", control(pattern="(a+)+$", matcher="pcre")),
    ("a matcher of nobody's", control(pattern="x", matcher={"a": 1})),
    ("an answer to nowhere", control(reply_to={"exchange": {}, "routing_key": []}, ticket=1)),
    ("an answer to an exchange without a name", control(reply_to={}, ticket=1)),
    ("a body that is a list", encoded({"body": "W10=", "properties": {"body_encoding": "base64", "delivery_tag": "x",
     "delivery_info": {}}, "content-type": "application/json", "content-encoding": "utf-8", "headers": {}})),
    ("revoking what is no id", control(method="revoke", arguments={"task_id": {"a": [None]}})),
    ("revoking with a signal of nobody's", control(method="revoke", arguments={"task_id": "x", "signal": "SIGNONE"})),
]  # fmt: skip


@pytest.mark.parametrize("channel", ["/0.afterword.pidbox"])
def test_messages_parsed_before_our_code_neither_stop_nor_restart_a_worker(toy: Toy, channel: str) -> None:
    child = toy.start()
    for name, message in HOSTILE:
        until(lambda: toy.redis.publish(channel, message), what=f"a listener for {name}")  # noqa: B023
        # Each message is handled before the next is sent, so the log shows the one at fault.
        row = toy.row()
        toy.push(row)
        until(lambda: [e for e in toy.events("end") if e["row"] == row] or child.ended(), what=name)  # noqa: B023
        assert not child.ended(), (name, child.text()[-2000:])

    until(lambda: toy.app.control.ping(timeout=1, limit=1), what="an answer to ping")
    assert_unbroken(toy, child.text())


@pytest.mark.parametrize("spoil", [
    lambda redis, key: redis.set(key, "x"),
    lambda redis, key: redis.hset(key, "a", "b"),
    lambda redis, key: redis.sadd(key, b"\xff", b"one part", b"\x06\x16\x06\x16\x06\x16\x06\x16", b"", b"x" * 100_000),
], ids=["a string", "a hash", "rubbish in it"])  # fmt: skip
@pytest.mark.parametrize("exchange", ["afterword.pidbox", "reply.afterword.pidbox"])
def test_foreign_data_under_kombus_names_neither_stops_nor_restarts_a_worker(
    toy: Toy, spoil: Callable[[Any, str], Any], exchange: str
) -> None:
    for key in (f"_kombu.binding.{exchange}", f"_kombu.binding.permanent.{exchange}"):
        spoil(toy.redis, key)
    child = toy.start()
    toy.app.control.broadcast("ping", reply=False)
    toy.push(toy.row())

    toy.await_events("end", 1)

    assert not child.ended()
    assert_unbroken(toy, child.text())


def test_our_keys_with_another_type_are_renamed_and_later_entries_run(toy: Toy) -> None:
    child = toy.start()
    spoiled = ["chat.run", "chat.run\x06\x163", "webhooks\x06\x169", "afterword:rejected"]
    kinds = [
        lambda key: toy.redis.set(key, "x"), lambda key: toy.redis.sadd(key, "x"),
        lambda key: toy.redis.hset(key, "a", "b"), lambda key: toy.redis.zadd(key, {"a": 1}),
    ]  # fmt: skip
    for key, spoil in zip(spoiled, kinds, strict=True):
        toy.redis.delete(key)
        spoil(key)
    until(lambda: all(toy.redis.exists(f"afterword:misplaced:{key}") for key in spoiled), what="the renaming")
    for queue in ("chat.run", "webhooks"):
        toy.redis.lpush(queue, b"rubbish")
        for priority in (0, 3, 9):
            toy.push(toy.row(), queue=queue, priority=priority)

    toy.await_events("end", 6)

    until(lambda: len(toy.rejected()) == 2, what="all rejects")
    assert child.text().count("redis.key_renamed") == len(spoiled)
    assert len(toy.events("ready")) == 1
    assert not child.ended()


@pytest.mark.parametrize("queue", ["chat.run", "webhooks"])
def test_a_huge_entry_among_the_nudges_is_cut_and_those_behind_it_run(toy: Toy, queue: str) -> None:
    child = toy.start(SLOTS="1")
    toy.redis.lpush(queue, *[b"[" * 10 * 1024 * 1024] * 3)
    toy.push(toy.row(), queue=queue)

    toy.await_events("end", 1)

    until(lambda: len(toy.rejected()) == 3, what="all rejects")
    assert {(reject["reason"], reject["size"]) for reject in toy.rejected()} == {("too_large", 10 * 1024 * 1024)}
    assert_unbroken(toy, child.text())


def test_nothing_published_on_the_control_exchange_stops_or_restarts_a_worker(toy: Toy) -> None:
    child = toy.start()
    for message in CONTROL:
        assert toy.redis.publish("/0.afterword.pidbox", message) == 1

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
