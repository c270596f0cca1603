"""The names of ours in Redis, and what to do when one of them holds another type than ours.

Anyone who reaches Redis can `SET chat.intake x`. Every command on that list then fails, ours and those of producers,
until the key is gone. So it is renamed, with what it holds, and the list works again.
"""

from collections.abc import Mapping
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.queue.nudges import REJECTED, TASKS, priority_lists

INTAKE: Final = "chat.intake"
# Every worker that has a list; Redis cannot list keys of one prefix without walking all of them.
OWNERS: Final = "afterword:intakes"
MISPLACED: Final = "afterword:misplaced:"

# KEYS: names, then the names they get. ARGV: the type of each. Returns the names that were given away.
_RENAME = """
local renamed = {}
for place = 1, #ARGV do
    local found = redis.call('TYPE', KEYS[place]).ok
    if found ~= 'none' and found ~= ARGV[place] then
        redis.call('RENAME', KEYS[place], KEYS[#ARGV + place])
        renamed[#renamed + 1] = KEYS[place]
    end
end
return renamed
"""

# Replies of a server that takes no writes for a while: its disk, its replicas, a script that runs, a failover. Those
# that redis-py has a class for come without their first word.
_NOT_NOW: Final = ("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED", "READONLY")
_REFUSALS: Final = (OutOfMemoryError, ReadOnlyError, TryAgainError, MasterDownError, NoPermissionError)

log = structlog.get_logger()


def own_list(worker_id: str) -> str:
    """Return the Redis list that holds what a worker has taken and not yet committed."""
    return f"afterword:intake:{worker_id}"


def is_wrong_type(error: BaseException) -> bool:
    """Say whether a command failed because a key holds another type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def is_full(error: BaseException) -> bool:
    """Say whether a script was refused because Redis is full.

    Redis 6.2 quotes the refusal inside another error of the script; from Redis 7 on it comes as it is.
    """
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error))


def is_redis_away(error: BaseException) -> bool:
    """Say whether Redis cannot be reached, or will not take commands now, so that waiting is the remedy."""
    if isinstance(error, ResponseError):
        return any(word in str(error) for word in _NOT_NOW) or isinstance(error, _REFUSALS)
    return isinstance(error, RedisConnectionError | RedisTimeoutError)


def put_aside(redis: Redis, *own_lists: str) -> None:
    """Rename every key of ours, and these lists, that hold another type. Raises RedisError."""
    types: Mapping[str, str] = {
        **dict.fromkeys([name for queue in (INTAKE, *TASKS) for name in priority_lists(queue)], "list"),
        **dict.fromkeys([REJECTED, *own_lists], "list"),
        OWNERS: "set",
    }
    names = [*types, *(MISPLACED + name for name in types)]
    for name in redis.register_script(_RENAME)(keys=names, args=list(types.values())):
        log.error("redis.key_renamed", key=name.decode(), to=MISPLACED + name.decode(), remedy="look at it, delete it")
