"""Bad entries in the lists of a real worker: each becomes a dead letter with its reason, and all good jobs run.

Stock Celery exits on the same entries, reconnects forever, or drops them silently.
"""

import json
import uuid
from collections import Counter
from typing import Any

from cryptography.fernet import Fernet

from tests.flow.system import System, request
from tests.pool.workers import until
from tests.queue.entries import BAD, encoded, envelope, without
from worker.jobs.core.entry_size import HEAD_BYTES
from worker.queue.keys import MISPLACED, OWNERS, own_list
from worker.queue.nudges import REJECTED, Rejected, priority_list, read

JOB = {"request": request()}
LIMIT = 64 * 1024


def submitted(job: Any = JOB, **changes: Any) -> Any:
    return envelope(**{"task": "chat.submit", "queue": "chat.intake", "body": [[job], {}, {}], **changes})


# Entries of `chat.intake`: name, entry, reason.
POISON: list[tuple[str, bytes, str]] = [
    (name, encoded(entry), reason)
    for name, entry, reason in [
        ("empty", b"", "not_json"),
        ("binary", b"\x80\x04\x95\xff\xfe", "not_json"),
        ("not JSON", b"hello", "not_json"),
        ("JSON, but a list", [1, 2], "not_an_object"),
        ("null", b"null", "not_an_object"),
        ("deep", b"[" * 30_000 + b"]" * 30_000, "too_deep"),
        ("huge", b'{"body": "' + b"x" * (5 * LIMIT) + b'"}', "too_large"),
        ("body is not base64", {**submitted(), "body": "%%%"}, "not_json"),
        ("body is not JSON", {**submitted(), "body": "aGVsbG8="}, "not_json"),
        ("body is no list of three", submitted(body={"a": 1}), "not_an_array"),
        ("body is a list of one", submitted(body=[[JOB]]), "bad_arguments"),
        ("body is null", {**submitted(), "body": None}, "no_body"),
        ("body is an object", {**submitted(), "body": {}}, "no_body"),
        ("no body", without(submitted(), "body"), "no_body"),
        ("no headers", without(submitted(), "headers"), "not_an_object"),
        ("no headers.id", without(submitted(), "headers", "id"), "no_id"),
        ("id a number", submitted(id=5), "no_id"),
        ("id an object", submitted(id={"a": 1}), "no_id"),
        ("id no UUID", submitted(id="order-7"), "id_not_uuid"),
        ("id in the job a number", submitted({**JOB, "id": 5}), "id_not_uuid"),
        ("task a list", submitted(task=["chat.submit"]), "no_task"),
        ("task a number", submitted(task=5), "no_task"),
        ("task unknown", submitted(task="celery.backend_cleanup"), "unknown_task"),
        ("task of another queue", submitted(task="chat.run"), "unknown_task"),
        ("task endless", submitted(task="x" * LIMIT), "unknown_task"),
        ("id endless", submitted(id="x" * LIMIT), "id_not_uuid"),
        ("job a list", submitted([1]), "not_an_object"),
        ("job a text", submitted("x"), "not_an_object"),
        ("two jobs", submitted(body=[[JOB, JOB], {}, {}]), "bad_arguments"),
        (
            "pickle",
            {**submitted(), "content-type": "application/x-python-serialize", "body": "gASVBQ=="},
            "not_json",
        ),
        ("a nudge", f"{uuid.UUID(int=7)}.1".encode(), "not_json"),
    ]
]

# Odd in parts that we do not read, so valid.
ODD: list[tuple[str, Any]] = [
    ("timelimit a number", submitted(timelimit=5)),
    ("timelimit an object", submitted(timelimit={"a": []})),
    ("stamped_headers a number", submitted(stamped_headers=5, stamps=[])),
    ("bad eta", submitted(eta="yesterday")),
    ("eta a list", submitted(eta=[1])),
    ("expired", submitted(expires="2001-01-01T00:00:00+00:00")),
    ("retries a text", submitted(retries="many")),
    ("no delivery tag", without(submitted(), "properties", "delivery_tag")),
    ("delivery tag an object", {**submitted(), "properties": {"delivery_tag": {}, "body_encoding": "base64"}}),
    ("delivery info a list", {**submitted(), "properties": {"delivery_info": [], "body_encoding": "base64"}}),
    ("no properties", without(submitted(), "properties")),
    ("properties a text", {**submitted(), "properties": "x"}),
    ("pickle, they say", {**submitted(), "content-type": "application/x-python-serialize"}),
    ("compression they have not", {**submitted(), "content-encoding": "binary"}),
]


def letters(system: System) -> Counter[tuple[str, str]]:
    return Counter((row.queue, row.reason) for row in system.rows("SELECT queue, reason FROM afterword_dead_letters"))


def assert_untroubled(system: System) -> None:
    for worker in system.workers:
        assert not worker.ended()
        said = worker.text()
        assert "Traceback" not in said
        assert "Connection to broker lost" not in said
        assert said.count(" ready.") == 1


def test_no_entry_of_the_intake_stops_a_worker_and_each_has_its_reason(system: System) -> None:
    system.start(max_request_bytes=LIMIT, tick_s=0.2)
    good = []
    for _, entry, _ in POISON:
        good.append(system.send())
        system.redis.lpush("chat.intake", entry)
    good += [entry["headers"]["id"] for _, entry in ODD]
    system.redis.lpush("chat.intake", *(encoded(entry) for _, entry in ODD))
    good.append(system.send())

    rows = system.await_all(good)

    assert {row.status for row in rows.values()} == {"completed"}
    wanted = Counter(("chat.intake", reason) for _, _, reason in POISON)
    until(lambda: letters(system).total() == wanted.total(), what="every dead letter")
    assert letters(system) == wanted
    texts = system.rows(
        "SELECT max(length(message)) AS longest, max(length(job_id)) AS id FROM afterword_dead_letters"
    )[0]
    assert texts.longest < 300
    assert texts.id <= 255
    stored = {bytes(row.entry) for row in system.rows("SELECT entry FROM afterword_dead_letters")}
    assert stored == {entry[:HEAD_BYTES] if reason == "too_large" else entry for _, entry, reason in POISON}
    assert_untroubled(system)


def test_poison_of_every_priority_and_size_leaves_the_good_ones_of_every_priority_alone(system: System) -> None:
    system.start(max_request_bytes=LIMIT, tick_s=0.2)
    big = b"[" * 10 * 1024 * 1024
    good = []
    for priority in range(10):
        system.redis.lpush(priority_list("chat.intake", priority), b"\xff", big)
        good.append(str(uuid.uuid4()))
        system.redis.lpush(priority_list("chat.intake", priority), encoded(submitted(id=good[-1])))
    system.redis.lpush(REJECTED, big, b"\xff", b"{}")
    system.redis.sadd(OWNERS, b"\xff", b"x" * 100_000, "", "gone")

    rows = system.await_all(good)

    assert {row.status for row in rows.values()} == {"completed"}
    wanted = Counter({("chat.intake", "not_json"): 10, ("chat.intake", "too_large"): 10, (REJECTED, "unreadable"): 3})
    until(lambda: letters(system).total() == wanted.total(), what="every dead letter")
    assert letters(system) == wanted
    assert system.rows("SELECT max(length(entry)) AS most FROM afterword_dead_letters")[0].most == HEAD_BYTES
    until(lambda: len(system.redis.smembers(OWNERS)) == 1, what="the owners to be the worker's own list only")
    assert_untroubled(system)


def test_intake_keys_with_another_type_are_renamed_and_later_entries_are_accepted(
    postgres_system: System,
) -> None:
    system = postgres_system
    system.start(tick_s=0.2)
    system.await_status(system.send())
    (owner,) = (name.decode() for name in system.redis.smembers(OWNERS))
    spoiled = ["chat.intake", priority_list("chat.intake", 4), REJECTED, OWNERS, own_list(owner)]
    for key in spoiled:
        with system.redis.pipeline() as together:
            together.delete(key).hset(key, "a", "b").execute()

    until(lambda: all(system.redis.exists(MISPLACED + key) for key in spoiled), what="the renaming")

    rows = system.await_all([system.send(), system.send(priority=0)])
    assert {row.status for row in rows.values()} == {"completed"}
    assert {line["key"] for line in system.lines("redis.key_renamed")} == set(spoiled)
    assert_untroubled(system)


def test_a_job_with_an_unreadable_url_fails_visibly_and_the_jobs_behind_it_run(system: System) -> None:
    system.start(webhook_allow_urls="true", secret_keys=Fernet.generate_key().decode())
    address = {"url": "https://xn--a.example/hooks"}
    by_queue = system.send(webhook=address)
    system.insert(request(), webhook=address, custom_id="by sql")
    good = [system.send(), system.send()]
    system.insert(request(), custom_id="good")

    rows = system.await_all([by_queue, *good])

    assert [rows[job_id].status for job_id in (by_queue, *good)] == ["failed", "completed", "completed"]
    assert rows[by_queue].error_code == "invalid_request"
    assert "webhook.url" in rows[by_queue].error_message
    found = until(
        lambda: (
            seen
            if len(seen := system.rows("SELECT custom_id, status FROM jobs_v1 WHERE custom_id IS NOT NULL")) == 2
            and {row.status for row in seen} <= {"completed", "failed"}
            else None
        ),
        what="the jobs submitted by SQL",
    )
    assert {row.custom_id: row.status for row in found} == {"by sql": "failed", "good": "completed"}
    assert letters(system) == {}
    assert_untroubled(system)


def test_no_entry_among_the_nudges_stops_a_worker_and_each_becomes_a_dead_letter(system: System) -> None:
    system.start(tick_s=0.2)
    bad = [(entry, found.reason) for _, entry, _ in BAD if isinstance(found := read("chat.run", entry), Rejected)]
    good = []
    for entry, _ in bad:
        good.append(system.send())
        system.redis.lpush("chat.run", entry)
    good.append(system.send())

    rows = system.await_all(good)

    assert {row.status for row in rows.values()} == {"completed"}
    wanted = Counter(("chat.run", reason) for _, reason in bad)
    until(lambda: letters(system).total() == wanted.total(), what="every dead letter")
    assert letters(system) == wanted
    assert_untroubled(system)


def test_a_huge_job_is_a_failed_one_and_its_neighbours_run(system: System) -> None:
    system.start(max_request_bytes=LIMIT)
    huge = str(uuid.uuid4())
    text = json.dumps(submitted({"request": request("x" * (LIMIT + 1))}, id=huge))
    first = system.send()
    system.redis.lpush("chat.intake", text)
    last = system.send()

    rows = system.await_all([first, huge, last])

    assert [rows[job_id].status for job_id in (first, huge, last)] == ["completed", "failed", "completed"]
    assert rows[huge].error_code == "invalid_request"
    assert_untroubled(system)
