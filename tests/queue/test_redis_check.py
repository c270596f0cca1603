"""A check names a Redis that cannot serve us, and finds jobs in queues that no worker reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection
from redis._parsers.base import BaseParser

from worker.dev.redis import RedisServer
from worker.queue.keys import is_full
from worker.queue.nudges import connect, push_nudges
from worker.queue.redis_check import server_facts, trouble_of, unread_lists, unusable


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({"redis_version": "6.0.16"}, "version 6.0.16"),
        ({"redis_version": "5.0"}, "version 5.0"),
        ({"redis_version": "7.2.4", "redis_mode": "cluster"}, "cluster mode"),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "cluster mode"),
    ],
)
def test_a_redis_that_cannot_serve_us_is_named(facts: dict[str, Any], names: str) -> None:
    assert names in (unusable(facts) or "")


@pytest.mark.parametrize("facts", [{}, {"redis_version": "6.2.14", "redis_mode": "standalone"}, {"redis_version": "x"}])
def test_a_suitable_redis_is_accepted(facts: dict[str, Any]) -> None:
    assert unusable(facts) is None


def test_a_real_redis_in_cluster_mode_is_refused(tmp_path: Path) -> None:
    server = RedisServer(folder=tmp_path, cluster=True).start()
    try:
        with redis.Redis.from_url(server.url) as client:
            assert "cluster mode" in (trouble_of(client) or "")
    finally:
        server.remove()


def test_a_redis_that_is_away_says_nothing() -> None:
    assert trouble_of(redis.Redis(port=1)) is None


def test_a_user_who_may_not_run_info_is_served(client: "redis.Redis", redis_url: str) -> None:
    client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-@dangerous")
    with redis.Redis.from_url(redis_url.replace("://", "://app:pw@")) as app:
        assert server_facts(app) == {}
        assert trouble_of(app) is None
    with connect(redis_url.replace("://", "://app:pw@")) as ours:
        assert ours.ping()
    named = {"transport": "worker.queue.remote_control:Transport", "transport_options": {"client_name": "afterword"}}
    with Connection(redis_url.replace("://", "://app:pw@"), **named) as control:
        control.connect()


def test_a_connection_has_its_name_where_it_may(redis_url: str) -> None:
    with connect(redis_url) as ours:
        assert ours.client_getname() == "afterword"


@pytest.mark.parametrize(
    ("options", "priority", "name"),
    [
        ({"sep": ":"}, 3, "chat.intake:3"),
        ({"global_keyprefix": "app:"}, None, "app:chat.intake"),
        ({"sep": ":", "global_keyprefix": "app:"}, 9, "app:chat.intake:9"),
    ],
)
def test_lists_made_by_a_producers_options_are_found(
    client: "redis.Redis", redis_url: str, options: dict[str, Any], priority: int | None, name: str
) -> None:
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.broker_transport_options = options | {"priority_steps": list(range(10))}
        for _ in range(2):
            app.send_task("chat.submit", args=[{}], queue="chat.intake", priority=priority)

    assert list(unread_lists(client)) == [(name, 2)]


def test_jobs_without_a_queue_are_found_in_celerys_own_and_its_other_tasks_are_not(
    client: "redis.Redis", redis_url: str
) -> None:
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.send_task("chat.submit", args=[{}])
        app.send_task("other.task", args=[{}])

    assert list(unread_lists(client)) == [("celery", 1)]


def test_lists_that_workers_read_are_not_named(client: "redis.Redis", redis_url: str) -> None:
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.broker_transport_options = {"priority_steps": list(range(10))}
        for priority in (None, 0, 3, 9):
            app.send_task("chat.submit", args=[{}], queue="chat.intake", priority=priority)
    push_nudges(client, "chat.run", [(5, b"x")], room=10)

    assert list(unread_lists(client)) == []


@pytest.mark.parametrize(
    "reply",
    [
        # Redis 6.2 and, according to its source, Redis 7.
        "ERR Error running script (call to f_1): @user_script:2: @user_script: 2: -OOM command not allowed when used "
        "memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: f1, on @user_script:2.",
    ],
)
def test_a_full_redis_is_known_by_the_words_of_each_version(reply: str) -> None:
    assert is_full(BaseParser.parse_error(reply))


def test_other_errors_of_a_script_are_no_full_redis() -> None:
    assert not is_full(BaseParser.parse_error("WRONGTYPE Operation against a key holding the wrong kind of value"))
