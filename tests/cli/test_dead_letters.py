"""dead-letters: list, show, requeue, purge."""

import base64
import json

import pytest
import redis
from sqlalchemy import Engine

from tests.cli.conftest import Command
from tests.jobs.store.dead_letters import ID, buried, letter
from tests.producers.made import accept_inbox, accept_queue
from tests.store.made import REQUEST, accept_all, entry, rows
from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.store.inbox import StoredEntry
from worker.queue.nudges import REJECTED_BYTES
from worker.store.engine import open_engine

JOB = json.dumps({"request": REQUEST}).encode()
MESSAGE = json.dumps(
    {"headers": {"task": "chat.submit", "id": ID}, "body": json.dumps([[{"request": REQUEST}], {}, {}])}
).encode()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> dict[str, str]:
    return {"AFTERWORD_DATABASE_URL": database_url, "AFTERWORD_REDIS_URL": redis_url}


def left(engine: Engine) -> list[int]:
    return [row.seq for row in rows(engine, "SELECT seq FROM afterword_dead_letters ORDER BY seq")]


def test_letters_are_listed_and_shown(afterword: Command, settings: dict[str, str], engine: Engine) -> None:
    assert afterword("dead-letters", "list", settings=settings).stdout == "no dead letters\n"
    buried(engine, letter(), letter(queue="chat.run", reason="no_id", entry="é".encode()))

    listed = json.loads(afterword("dead-letters", "list", "--json").stdout)

    assert [(one["seq"], one["reason"], one["size"]) for one in listed] == [(2, "no_id", 2), (1, "not_json", 2)]
    assert "no_id" in afterword("dead-letters", "list", "--queue", "chat.run").stdout
    assert afterword("dead-letters", "list", "--reason", "else").stdout == "no dead letters\n"
    assert "entry       é" in afterword("dead-letters", "show", "2").stdout
    shown = json.loads(afterword("dead-letters", "show", "1", "--json").stdout)
    assert base64.b64decode(shown["entry_base64"]) == b"\xff\x00"
    assert "there is no dead letter 7" in afterword("dead-letters", "show", "7").stderr


def test_scripts_get_instants_in_utc_for_any_time_zone_of_the_database(afterword: Command, postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    buried(engine, letter())
    accept_all(engine, entry(id=ID))
    tokyo = {"AFTERWORD_DATABASE_URL": postgresql_url, "PGTZ": "Asia/Tokyo"}

    (listed,) = json.loads(afterword("dead-letters", "list", "--json", settings=tokyo).stdout)
    known = json.loads(afterword("status", ID, "--json").stdout)

    assert [listed["created_at"][-1], known["created_at"][-1]] == ["Z", "Z"]
    engine.dispose()


def test_letters_go_back_to_where_they_came_from(
    afterword: Command, settings: dict[str, str], engine: Engine, redis_url: str
) -> None:
    inserted = StoredEntry("submit_v1", "not_accepted", "m", JOB, ID)
    buried(engine, inserted, letter(entry=MESSAGE), letter(queue="chat.run", entry=b"odd"))

    assert afterword("dead-letters", "requeue", "1", "2", "3", settings=settings).exit_code == 0

    assert left(engine) == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.lrange("chat.run", 0, -1) == [b"odd"]
    assert [one.outcome for one in accept_inbox(engine)] == ["queued"]
    assert [one.outcome for one in accept_queue(redis_url, engine)] == ["duplicate"]
    assert str(rows(engine, "SELECT id FROM jobs_v1")[0].id) == ID


def test_all_letters_of_a_reason_go_back_and_no_other(
    afterword: Command, settings: dict[str, str], engine: Engine, redis_url: str
) -> None:
    buried(engine, *[letter(reason="not_accepted", entry=MESSAGE)] * 3, letter())

    result = afterword("dead-letters", "requeue", "--reason", "not_accepted", "--json", settings=settings)

    assert json.loads(result.stdout) == {"requeued": 3, "stay": []}
    assert left(engine) == [4]
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("chat.intake") == 3


def test_a_letter_that_cannot_be_put_back_stays_with_a_reason(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    buried(
        engine,
        letter(queue="submit_v1"),
        letter(queue="submit_v1", entry=b'{"a":"\0"}'),
        letter(queue="chat.run", entry=b"x" * REJECTED_BYTES),
        letter(queue="afterword:rejected"),
        letter(queue="submit_v1", reason="too_large", entry=b"x" * HEAD_BYTES),
        letter(queue="chat.intake", reason="too_large", entry=b"x" * HEAD_BYTES),
    )

    result = afterword("dead-letters", "requeue", "1", "2", "3", "4", "5", "6", settings=settings)

    assert result.exit_code == 3
    for sentence in (
        "1: its bytes are no UTF-8 at byte 0", "2: it holds a zero byte", "3: only its first 1048576 bytes were kept",
        "4: it was found in 'afterword:rejected', and nothing can be put back there",
        "5: only its first 65536 bytes were kept; send it again, within the limit",
        "6: only its first 65536 bytes were kept; send it again, within the limit",
    ):  # fmt: skip
        assert sentence in result.stderr
    assert left(engine) == [1, 2, 3, 4, 5, 6]


def test_a_redis_that_is_away_loses_no_letter(afterword: Command, sqlite_url: str) -> None:
    from worker.store.engine import open_engine

    engine = open_engine(sqlite_url)
    buried(engine, letter())
    away = {"AFTERWORD_DATABASE_URL": sqlite_url, "AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0"}

    result = afterword("dead-letters", "requeue", "1", settings=away)

    assert result.exit_code == 1
    assert "Redis" in result.stderr
    assert left(engine) == [1]
    engine.dispose()


def test_letters_are_purged_by_time_and_reason(afterword: Command, settings: dict[str, str], engine: Engine) -> None:
    buried(engine, letter(), letter(reason="no_task"), letter())

    dry = afterword("dead-letters", "purge", "--reason", "not_json", "--dry-run", settings=settings)
    assert dry.stdout == "2 dead letters would be deleted\n"
    assert (
        afterword("dead-letters", "purge", "--before", "2020-01-01T00:00:00Z").stdout == "0 dead letters were deleted\n"
    )
    assert json.loads(afterword("dead-letters", "purge", "--reason", "not_json", "--json").stdout)["letters"] == 2
    assert left(engine) == [2]
    assert afterword("dead-letters", "purge", "--before", "2999-01-01T00:00:00Z").exit_code == 0
    assert left(engine) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["requeue"], "give the numbers of dead letters, or --queue or --reason"),
        (["requeue", "1", "--reason", "x"], "give the numbers of dead letters, or --queue or --reason"),
        (["purge"], "choose dead letters with --before, --queue or --reason"),
        (["purge", "--before", "then"], "--before is 'then'; write a time"),
    ],
)
def test_an_unclear_command_line_is_refused(
    afterword: Command, sqlite_url: str, arguments: list[str], sentence: str
) -> None:
    result = afterword("dead-letters", *arguments, settings={"AFTERWORD_DATABASE_URL": sqlite_url})

    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
