"""The Redis side of intake: entries move into a list of this worker's own, and leave it when they are committed.

One atomic step takes them, so that nothing is lost between two commands; a worker that dies leaves its list behind,
known by the set OWNERS, and the dispatcher gives it back. When Redis is full nothing can be moved; then entries are
read where they stand and removed by value after the commit. Two readers make a duplicate, which ACCEPT knows.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from worker.nudge import priority_lists

QUEUE = "chat.intake"
# Every worker that has a list; Redis cannot list keys of one prefix without walking all of them.
OWNERS = "afterword:intakes"
MOST_BYTES = 8 * 1024 * 1024
DOORBELL_S = 1

# KEYS: our list, the set of owners, then the sources, best priority first. ARGV: our id, entries, bytes.
# Returns what our list holds, oldest first.
_TAKE = """
redis.call('SADD', KEYS[2], ARGV[1])
local left, bytes = tonumber(ARGV[2]) - redis.call('LLEN', KEYS[1]), tonumber(ARGV[3])
for source = 3, #KEYS do
    while left > 0 and bytes > 0 do
        local entry = redis.call('LMOVE', KEYS[source], KEYS[1], 'RIGHT', 'LEFT')
        if not entry then break end
        left, bytes = left - 1, bytes - #entry
    end
end
local entries = redis.call('LRANGE', KEYS[1], 0, -1)
local oldest_first = {}
for place = #entries, 1, -1 do oldest_first[#oldest_first + 1] = entries[place] end
return oldest_first
"""

# KEYS: a worker's list, the source, the set of owners. ARGV: the worker. Puts the oldest first again.
_GIVE_BACK = """
local moved = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('SREM', KEYS[3], ARGV[1])
return moved
"""


class Taken(NamedTuple):
    """Entries to be committed, oldest first: held in our list `own`, or (None) still at their sources."""

    own: str | None
    entries: list[bytes]
    sources: list[str]


def own_list(worker_id: str) -> str:
    """Return the Redis list that holds what a worker has taken and not yet committed."""
    return f"afterword:intake:{worker_id}"


class Taking:
    """What one worker takes. `worker_id()` is the id of its lease, which changes when a lease is lost."""

    def __init__(self, redis: Redis, worker_id: Callable[[], str], *, batch: int) -> None:
        self._redis, self._worker_id, self._batch = redis, worker_id, batch
        self._sources = priority_lists(QUEUE)
        # Where the last entry came from: a blocking move watches one list only.
        self._doorbell = self._sources[0]
        self._last = ""
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)

    def take(self) -> Taken:
        """Return the oldest entries; wait a second at most when there are none. Raises RedisError."""
        worker_id = self._worker_id()
        if self._last not in ("", worker_id):
            self.give_back(self._last)
        self._last = worker_id
        try:
            taken = self._moved(worker_id)
            if taken.entries:
                return taken
            entry = self._redis.blmove(self._doorbell, own_list(worker_id), DOORBELL_S, "RIGHT", "LEFT")
            if entry is not None:
                # Alone in our list, which was empty; what came behind it is the next batch.
                return Taken(own_list(worker_id), [cast("bytes", entry)], [])
            self._watch_another()
            return self._moved(worker_id)
        except ResponseError as error:
            if "OOM" not in str(error):
                raise
            return self._read()

    def done(self, taken: Taken) -> None:
        """Forget what was committed."""
        if taken.own is not None:
            self._redis.delete(taken.own)
            return
        for entry, source in zip(taken.entries, taken.sources, strict=True):
            self._redis.lrem(source, -1, cast("str", entry))

    def give_back(self, owner: str) -> int:
        """Return a worker's list to the queue; how many entries it held."""
        return int(self._give_back(keys=[own_list(owner), self._sources[0], OWNERS], args=[owner]))

    def owners(self) -> set[str]:
        """Return the workers that have a list, living or not."""
        return {bytes(owner).decode() for owner in cast("set[bytes]", self._redis.smembers(OWNERS))}

    def _moved(self, worker_id: str) -> Taken:
        keys = [own_list(worker_id), OWNERS, *self._sources]
        return Taken(keys[0], self._take(keys=keys, args=[worker_id, self._batch, MOST_BYTES]), [])

    def _watch_another(self) -> None:
        for source in self._sources:
            if self._redis.llen(source):
                self._doorbell = source
                return

    def _read(self) -> Taken:
        """Read entries where they stand: Redis is full, and taking them is what makes room."""
        taken = Taken(None, [], [])
        for source in [own_list(self._last), *self._sources]:
            entries = cast("list[bytes]", self._redis.lrange(source, -self._batch, -1))
            taken.entries.extend(reversed(entries))
            taken.sources.extend([source] * len(entries))
        return taken
