"""Our keys in Redis, and the repair of a key that has a wrong type.

Any client of Redis can `SET chat.intake x`. Then every command on that list fails, ours and those of producers, until
the key is gone. `put_aside` renames the key, keeps its value, and the list works again.
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
# The set of all workers with an own list. Without it, a search by prefix reads the names of all keys.
OWNERS: Final = "afterword:intakes"
MISPLACED: Final = "afterword:misplaced:"

# KEYS: names, then their new names. ARGV: the expected type of each. Returns the old names of the renamed keys.
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

# Error replies of a server that refuses writes for a while: full disk, missing replicas, a running script, a failover.
# redis-py removes the first word of replies for which it has a class; those are in _REFUSALS.
_NOT_NOW: Final = ("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED", "READONLY")
_REFUSALS: Final = (OutOfMemoryError, ReadOnlyError, TryAgainError, MasterDownError, NoPermissionError)

log = structlog.get_logger()


def own_list(worker_id: str) -> str:
    """Return the Redis list of entries that a worker has taken and not yet committed."""
    return f"afterword:intake:{worker_id}"


def is_wrong_type(error: BaseException) -> bool:
    """Return whether a command failed because a key has a wrong type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def is_full(error: BaseException) -> bool:
    """Return whether Redis refused a script because its memory is full.

    Redis 6.2 quotes the error inside a script error; Redis 7 and later return the error itself.
    """
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error))


def is_redis_away(error: BaseException) -> bool:
    """Return whether Redis is unreachable or refuses commands for now: the caller should wait and retry."""
    if isinstance(error, ResponseError):
        return any(word in str(error) for word in _NOT_NOW) or isinstance(error, _REFUSALS)
    return isinstance(error, RedisConnectionError | RedisTimeoutError)


def put_aside(redis: Redis, *own_lists: str) -> None:
    """Rename each of our keys, and of `own_lists`, that has a wrong type. Raises RedisError."""
    types: Mapping[str, str] = {
        **dict.fromkeys([name for queue in (INTAKE, *TASKS) for name in priority_lists(queue)], "list"),
        **dict.fromkeys([REJECTED, *own_lists], "list"),
        OWNERS: "set",
    }
    names = [*types, *(MISPLACED + name for name in types)]
    for name in redis.register_script(_RENAME)(keys=names, args=list(types.values())):
        log.error("redis.key_renamed", key=name.decode(), to=MISPLACED + name.decode(), remedy="check it, delete it")
