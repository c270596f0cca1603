"""Whether a Redis can serve us, and messages that stand where no worker reads. Used by the start and by `doctor`."""

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
# How long `doctor` looks through the names of a Redis that it shares with other applications.
LOOK_S: Final = 2.0
# Celery's own default queue, where messages go that name none, and how many of its entries are looked at.
_DEFAULT_QUEUE: Final = "celery"
_SAMPLE: Final = 20


def server_facts(redis: "Redis") -> dict[str, Any]:
    """Return what INFO says of the server; {} where this user may not ask. Raises other RedisErrors."""
    try:
        return dict(redis.info())
    except NoPermissionError:
        return {}


def unusable(facts: dict[str, Any]) -> str | None:
    """Say in a sentence why a Redis with these facts cannot serve us, or None."""
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
    """Yield lists that hold jobs and that no worker reads, with their lengths; a producer's options have made them.

    Looks at the names of all keys for `look_s` seconds at most: SCAN costs the server little at a time.
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
        ours = 0
        with suppress(ReplyTooLong):  # another application's entries
            ours = sum(b'"chat.submit"' in entry for entry in redis.lrange(_DEFAULT_QUEUE, 0, _SAMPLE - 1))
        if ours:
            yield _DEFAULT_QUEUE, ours


def trouble_of(redis: "Redis") -> str | None:
    """Say in a sentence why this Redis cannot serve us; None where it can, or does not answer now."""
    try:
        return unusable(server_facts(redis))
    except UnknownPrimary as error:
        return f"AFTERWORD_REDIS_URL leads nowhere: {error}"
    except RedisError:
        return None
