"""Entries of any bytes can be read, and are pushed only while there is room."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.queue.entries import BAD, ODD, ROW, encoded, envelope
from worker.queue.nudges import (
    REJECTED_BYTES,
    Nudge,
    Rejected,
    connect,
    job_of,
    nudge,
    priority_list,
    push_nudges,
    read,
    read_window,
)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return connect(redis_url)


def test_a_nudge_is_its_own_celery_id() -> None:
    assert nudge(ROW, 3) == f"{ROW}.3".encode()
    assert read("chat.run", nudge(ROW, 3)) == Nudge(ROW, f"{ROW}.3")
    assert job_of(f"{ROW}.3") == ROW


@pytest.mark.parametrize("celery_id", [ROW, f"{ROW}.", f"{ROW}.x", "é.1", "", "\ud800"])
def test_other_ids_are_no_nudges(celery_id: str) -> None:
    assert job_of(celery_id) is None


def test_a_celery_message_is_a_nudge_under_its_own_id() -> None:
    message = envelope(ROW.upper(), id="some-id")

    assert read("chat.run", encoded(message)) == Nudge(ROW, "some-id")


def test_options_without_effect_are_named() -> None:
    found = read("chat.run", encoded(envelope(eta="2099-01-01T00:00:00Z", expires=3)))

    assert isinstance(found, Nudge)
    assert found.ignored == ("eta", "expires")


@pytest.mark.parametrize(("entry", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_an_entry_that_is_no_nudge_is_rejected_with_its_reason_and_its_bytes(entry: bytes, reason: str) -> None:
    found = read("chat.run", entry)

    assert isinstance(found, Rejected)
    assert found.reason == reason
    fields = json.loads(found.as_json())
    assert fields["queue"] == "chat.run"
    assert fields["size"] == len(entry)
    assert base64.b64decode(fields["entry"]) == entry[:REJECTED_BYTES]


@pytest.mark.parametrize("message", [case[1] for case in ODD], ids=[case[0] for case in ODD])
def test_a_fault_in_an_unread_part_does_not_matter(message: Any) -> None:
    found = read("chat.run", encoded(message))

    assert isinstance(found, Nudge)
    assert found.row_id == ROW


@given(st.binary(max_size=200))
def test_no_bytes_raise(entry: bytes) -> None:
    assert isinstance(read("webhooks", entry), Nudge | Rejected)


def test_lists_are_named_as_kombu_names_them() -> None:
    assert priority_list("chat.run", 0) == "chat.run"
    assert priority_list("chat.run", 9) == "chat.run\x06\x169"


def test_nudges_are_pushed_while_there_is_room(redis: Redis) -> None:
    entries = [(priority, nudge(ROW, priority)) for priority in range(10)]

    assert push_nudges(redis, "chat.run", entries[:4], room=6) == 4
    assert push_nudges(redis, "chat.run", entries[4:], room=6) == 2
    assert push_nudges(redis, "chat.run", entries, room=6) == 0
    assert push_nudges(redis, "chat.run", [], room=6) == 0
    assert read_window(redis, "chat.run").keys() == {entry for _, entry in entries[:6]}
    assert read_window(redis, "webhooks") == {}


def test_twenty_thousand_nudges_are_one_push(redis: Redis) -> None:
    entries = [(5, nudge(ROW, number)) for number in range(20_000)]

    assert push_nudges(redis, "chat.run", entries, room=30_000) == 20_000
    assert len(read_window(redis, "chat.run")) == 20_000
