"""An entry far above the limit does not block its queue: its size is read first, and only its head is fetched.

BIG_ROW_MIB (550 in the long form) sets its size.
"""

import json
import os
import threading
import tracemalloc
import uuid
from collections.abc import Iterator

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests.jobs.store.intakes import LONGEST, MIB, intake
from tests.pool.workers import until
from tests.store.made import REQUEST, rows
from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.intake_list import CUT, IntakeList
from worker.jobs.store.inbox import take_inbox
from worker.queue.keys import own_list
from worker.queue.list_heads import ListEntry, ListHeads
from worker.queue.nudges import connect, read_window

BIG = int(os.environ.get("BIG_ROW_MIB", "64")) * MIB
# The memory for a batch beside the head: a fraction of the entry.
ROOM = 4 * MIB


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        client.flushdb()
        yield client
        client.flushdb()


def insert(engine: Engine, job: str, times: int = 1) -> None:
    with engine.begin() as connection:
        for _ in range(times):
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), {"job": job})


def insert_big(engine: Engine, piece: str, times: int) -> None:
    """Insert a job of `times` repeated pieces; PostgreSQL builds the text itself."""
    if engine.dialect.name == "sqlite":
        return insert(engine, piece * times)
    with engine.begin() as connection:
        statement = text("INSERT INTO submit_v1 (job) SELECT repeat(:piece, :times)")
        connection.execute(statement, {"piece": piece, "times": times})


def test_of_a_big_row_the_head_is_fetched_and_those_behind_it_come_in_the_same_batch(engine: Engine) -> None:
    insert(engine, json.dumps({"request": REQUEST, "custom_id": "é" * 10}))
    insert_big(engine, "ü", BIG // 2)
    insert(engine, "{}", times=3)
    tracemalloc.start()
    with engine.begin() as connection:
        taken = take_inbox(connection, limit=500, max_bytes=8 * MIB, longest=LONGEST)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [row.size for row in taken[1:]] == [BIG, 2, 2, 2]
    assert [len(row.job) for row in taken[1:]] == [HEAD_BYTES, 2, 2, 2]
    assert taken[0].size == len(taken[0].job)
    assert taken[1].job == "ü".encode() * (HEAD_BYTES // 2)
    assert peak < ROOM
    assert rows(engine, "SELECT seq FROM afterword_inbox") == []


def test_a_row_at_the_limit_is_whole(engine: Engine) -> None:
    insert(engine, "x" * LONGEST)
    insert(engine, "x" * (LONGEST + 1))
    with engine.begin() as connection:
        taken = take_inbox(connection, limit=10, max_bytes=8 * MIB, longest=LONGEST)

    assert [(row.size, len(row.job)) for row in taken] == [(LONGEST, LONGEST), (LONGEST + 1, HEAD_BYTES)]


def test_jobs_behind_a_big_row_are_accepted_and_the_row_is_a_dead_letter(
    engine: Engine, redis: Redis, redis_url: str
) -> None:
    job = json.dumps({"request": REQUEST, "metadata": {"a": "x" * BIG}})
    insert(engine, job)
    insert(engine, json.dumps({"request": REQUEST}), times=2)

    intake(engine, redis, redis_url).drain_inbox()

    assert [row.status for row in rows(engine, "SELECT status FROM jobs_v1")] == ["queued"] * 2
    (letter,) = rows(engine, "SELECT queue, reason, message, job_id, entry FROM afterword_dead_letters")
    assert (letter.queue, letter.reason, len(bytes(letter.entry))) == ("submit_v1", "too_large", HEAD_BYTES)
    assert f"{len(job)} bytes" in letter.message
    assert letter.job_id is not None


def test_of_a_big_message_the_head_is_taken_once_and_comes_again_until_it_is_a_dead_letter(
    engine: Engine, redis: Redis, redis_url: str
) -> None:
    job_id = str(uuid.uuid4())
    redis.lpush("chat.intake", b"[" * BIG, _message(job_id))
    tracemalloc.start()
    taken = IntakeList(redis, lambda: "w", batch=64, longest=LONGEST).take()
    again = IntakeList(redis, lambda: "w", batch=64, longest=LONGEST).take()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # It fills a batch alone; our list returns it again with the entries behind it.
    assert taken.entries == [ListEntry(BIG, b"[" * HEAD_BYTES)]
    assert [held.size for held in again.entries] == [BIG, len(_message(job_id))]
    assert peak < ROOM
    # Redis reads the entry once: a later reader, or the heir of a dead worker's list, finds only the head.
    assert redis.memory_usage(own_list("w"), samples=0) < 2 * HEAD_BYTES
    assert IntakeList(redis, lambda: "x", batch=64, longest=LONGEST).give_back("w") == 2
    again = IntakeList(redis, lambda: "y", batch=64, longest=LONGEST).take()
    assert [held.size for held in again.entries] == [BIG, len(_message(job_id))]
    work = intake(engine, redis, redis_url)
    work._accept_taken(again)
    assert [str(row.id) for row in rows(engine, "SELECT id FROM jobs_v1")] == [job_id]
    assert [row.reason for row in rows(engine, "SELECT reason FROM afterword_dead_letters")] == ["too_large"]
    assert redis.keys("afterword:intake:*") == []


@pytest.mark.parametrize("entry", [CUT, CUT + b"5", CUT + b"x:y", CUT + b"9" * 5000 + b":", CUT + b"5:", CUT + b"-1:{"])
def test_an_entry_that_looks_like_a_cut_one_is_a_dead_letter_too(
    engine: Engine, redis: Redis, redis_url: str, entry: bytes
) -> None:
    redis.lpush("chat.intake", entry)
    work = intake(engine, redis, redis_url)
    work._accept_taken(work._intake_list.take())

    assert len(rows(engine, "SELECT reason FROM afterword_dead_letters")) == 1
    assert redis.keys("*intake*") == [b"afterword:intakes"]


def test_a_big_entry_that_rings_the_bell_is_not_carried_to_the_worker(redis: Redis, redis_url: str) -> None:
    taking = IntakeList(connect(redis_url, longest=MIB), lambda: "w", batch=64, longest=LONGEST)
    taken: list[int] = []

    def take() -> None:
        while not taken:
            taken.extend(held.size for held in taking.take().entries)

    thread = threading.Thread(target=take)
    thread.start()
    until(lambda: [one for one in redis.client_list() if one["cmd"] == "blmove"], what="the doorbell")
    redis.lpush("chat.intake", b"x" * (2 * MIB))
    thread.join()

    assert taken == [2 * MIB]


def test_a_big_entry_read_in_place_is_removed_by_size_and_head(redis: Redis) -> None:
    like, big = b"y" * (2 * MIB - 1), b"y" * (2 * MIB)
    redis.lpush("some", b"first", big, like, b"last")
    heads = ListHeads(redis, longest=LONGEST, head=HEAD_BYTES)
    found = [held for _, held in heads.read(["other", "some"], entries=10, max_bytes=100 * MIB)]
    assert [held.size for held in found] == [5, 2 * MIB, 2 * MIB - 1, 4]

    heads.remove("some", found[1], entries=10)
    heads.remove("some", found[1], entries=10)

    assert redis.lrange("some", 0, -1) == [b"last", like, b"first"]
    assert [held.size for _, held in heads.read(["some"], entries=10, max_bytes=6)] == [5, 2 * MIB - 1]


def test_a_window_is_read_back_without_the_bytes_of_foreign_entries(redis: Redis) -> None:
    redis.lpush("chat.run", b"x" * (8 * MIB), b"short")
    tracemalloc.start()
    standing = read_window(redis, "chat.run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert set(standing) == {b"short", b"x" * 1024}
    assert peak < MIB


def _message(job_id: str) -> bytes:
    body = json.dumps([[{"request": REQUEST}], {}, {}])
    return json.dumps({"headers": {"task": "chat.submit", "id": job_id}, "body": body}).encode()
