"""Check if a Redis can serve us, and find messages in lists without a reader. For a worker's start and `doctor`."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, cast

from redis import Redis, RedisError
from redis.exceptions import NoPermissionError

from worker.queue.connections import ReplyTooLong
from worker.queue.keys import INTAKE, OWNERS
from worker.queue.nudges import priority_lists
from worker.queue.sentinel import UnknownPrimary

OLDEST: Final = (6, 2)
# How long `doctor` scans the keys of a Redis, because the Redis may be shared with other applications.
LOOK_S: Final = 2.0
# Celery's default queue, for messages without a queue name, and the number of its entries that are read.
_DEFAULT_QUEUE: Final = "celery"
_SAMPLE: Final = 20


def server_facts(redis: "Redis") -> dict[str, Any]:
    """Return the server's INFO; {} if this user may not run INFO. Raises other RedisErrors."""
    try:
        return dict(redis.info())
    except NoPermissionError:
        return {}


def unusable(facts: dict[str, Any]) -> str | None:
    """Return a sentence with the reason if a Redis with these facts cannot serve us, else None."""
    version = str(facts.get("redis_version", ""))
    numbers = version.split(".")[:2]
    if all(number.isdecimal() for number in numbers) and tuple(map(int, numbers)) < OLDEST:
        return f"Redis is version {version}; 6.2 or newer is needed, for LMOVE"
    if facts.get("redis_mode") == "cluster" or facts.get("cluster_enabled") == 1:
        return (
            "Redis runs in cluster mode, and our scripts move entries between keys of different slots; use a Redis "
            "without cluster mode (or one shard behind Sentinel), and set AFTERWORD_REDIS_URL to it"
        )
    return None


def unread_lists(redis: "Redis", *, look_s: float = LOOK_S) -> Iterator[tuple[str, int]]:
    """Yield the names and lengths of lists with jobs that no worker reads, made by wrong options of a producer.

    Scans the names of all keys for at most `look_s` seconds; each SCAN costs the server little.
    """
    known = {*priority_lists(INTAKE), OWNERS}
    give_up = time.monotonic() + look_s
    cursor, found = 0, set[str]()
    keys: list[bytes]
    while time.monotonic() < give_up:
        cursor, keys = cast("Any", redis.scan(cursor, match=f"*{INTAKE}*", count=1000, _type="list"))
        found |= {key.decode("utf-8", "backslashreplace") for key in keys} - known
        if cursor == 0:
            break
    for name in sorted(found):
        if length := redis.llen(name):
            yield name, int(length)
    if redis.type(_DEFAULT_QUEUE) == b"list":
        jobs = 0
        with suppress(ReplyTooLong):  # another application's entries
            jobs = sum(b'"chat.submit"' in entry for entry in redis.lrange(_DEFAULT_QUEUE, 0, _SAMPLE - 1))
        if jobs:
            yield _DEFAULT_QUEUE, jobs


def trouble_of(redis: "Redis") -> str | None:
    """Return a sentence with the reason if this Redis cannot serve us; None if it can, or does not answer now."""
    try:
        return unusable(server_facts(redis))
    except UnknownPrimary as error:
        return f"AFTERWORD_REDIS_URL leads nowhere: {error}"
    except RedisError:
        return None
