"""The Redis side of intake: entries move into a list of this worker's own, and leave it when they are committed.

One atomic step takes them, so that nothing is lost between two commands; a worker that dies leaves its list behind,
known by the set OWNERS, and the dispatcher gives it back. When Redis is full nothing can be moved; then entries are
read where they stand and removed by value after the commit. Two readers make a duplicate, which ACCEPT knows.

Of an entry that is too large to be read only the head is taken.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from worker.jobs.core.entry_size import HEAD_BYTES
from worker.queue.connections import ReplyTooLong
from worker.queue.keys import INTAKE, OWNERS, is_full, is_wrong_type, own_list, put_aside
from worker.queue.list_heads import SHOW, ListEntry, ListHeads, by
from worker.queue.nudges import priority_lists

MOST_BYTES = 8 * 1024 * 1024
DOORBELL_S = 1
CUT = b"afterword:cut:"
OWNERS_AT_ONCE = 1000

# KEYS: our list, the set of owners, then the sources, best priority first. ARGV: longest, head, our id, entries, bytes,
# the mark of an entry that was cut. Returns what our list holds, oldest first. Redis reads an entry of half a gigabyte
# for a second or more, and should we have given up by then, we ask again: so our list gets its size and its head only.
_TAKE = (
    SHOW
    + """
redis.call('SADD', KEYS[2], ARGV[3])
local standing = redis.call('LRANGE', KEYS[1], 0, -1)
for place = #standing, 1, -1 do show(standing[place]) end
local left, bytes = tonumber(ARGV[4]) - #standing, tonumber(ARGV[5])
for source = 3, #KEYS do
    while left > 0 and bytes > 0 do
        local entry = redis.call('LMOVE', KEYS[source], KEYS[1], 'RIGHT', 'LEFT')
        if not entry then break end
        left, bytes = left - 1, bytes - #entry
        if #entry > longest then
            entry = ARGV[6] .. #entry .. ':' .. string.sub(entry, 1, head)
            redis.call('LTRIM', KEYS[1], 1, -1)
            redis.call('LPUSH', KEYS[1], entry)
        end
        show(entry)
    end
end
return shown
"""
)

# KEYS: a worker's list, the source, the set of owners. ARGV: the worker. Puts the oldest first again.
_GIVE_BACK = """
local moved = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('SREM', KEYS[3], ARGV[1])
return moved
"""


class TakenEntries(NamedTuple):
    """Entries to be committed, oldest first: held in our list `own`, or (None) still at their sources."""

    own: str | None
    entries: list[ListEntry]
    sources: list[str]


class IntakeList:
    """What one worker takes. `worker_id()` is the id of its lease, which changes when a lease is lost.

    `longest`: of an entry of more bytes only the head is taken.
    """

    def __init__(self, redis: Redis, worker_id: Callable[[], str], *, batch: int, longest: int = MOST_BYTES) -> None:
        self._redis, self._worker_id, self._batch = redis, worker_id, batch
        self._longest = max(longest, HEAD_BYTES)
        self._sources = priority_lists(INTAKE)
        # Where the last entry came from: a blocking move watches one list only.
        self._doorbell = self._sources[0]
        self._last = ""
        self._take = redis.register_script(_TAKE)
        self._heads = ListHeads(redis, longest=self._longest, head=HEAD_BYTES)
        self._give_back = redis.register_script(_GIVE_BACK)

    def take(self) -> TakenEntries:
        """Return the oldest entries; wait a second at most when there are none. Raises RedisError."""
        worker_id = self._worker_id()
        try:
            if self._last not in ("", worker_id):
                self.give_back(self._last)
            self._last = worker_id
            taken = self._moved(worker_id)
            if taken.entries:
                return taken
            # The oldest entry is moved to where it stands: a doorbell. Redis would move it into our list also while we
            # are frozen, and after a flush nobody knows whose list that is.
            with suppress(ReplyTooLong):  # an entry that large: the script will cut it
                if self._redis.blmove(self._doorbell, self._doorbell, DOORBELL_S, "RIGHT", "RIGHT") is None:
                    self._watch_another()
            return self._moved(worker_id)
        except ResponseError as error:
            if is_wrong_type(error):
                put_aside(self._redis, own_list(worker_id))
            if not is_full(error):
                raise
            return self._read()

    def done(self, taken: TakenEntries) -> None:
        """Forget what was committed."""
        if taken.own is not None:
            self._redis.delete(taken.own)
            return
        for entry, source in zip(taken.entries, taken.sources, strict=True):
            self._heads.remove(source, entry, entries=self._batch)

    def give_back(self, owner: str) -> int:
        """Return a worker's list to the queue; how many entries it held."""
        return int(self._give_back(keys=[own_list(owner), self._sources[0], OWNERS], args=[owner]))

    def owners(self) -> set[str]:
        """Return workers that have a list, living or not, OWNERS_AT_ONCE at most. What is no name is forgotten."""
        found = set(cast("list[bytes]", self._redis.srandmember(OWNERS, OWNERS_AT_ONCE)))
        if foreign := {name for name in found if not _is_name(name)}:
            self._redis.srem(OWNERS, *cast("set[str]", foreign))
        return {name.decode() for name in found - foreign}

    def _moved(self, worker_id: str) -> TakenEntries:
        keys = [own_list(worker_id), OWNERS, *self._sources]
        shown = self._take(keys=keys, args=[self._longest, HEAD_BYTES, worker_id, self._batch, MOST_BYTES, CUT])
        return TakenEntries(keys[0], [_held(*pair) for pair in by(2, shown)], [])

    def _watch_another(self) -> None:
        for source in self._sources:
            if self._redis.llen(source):
                self._doorbell = source
                return

    def _read(self) -> TakenEntries:
        """Read entries where they stand: Redis is full, and taking them is what makes room."""
        keys = [own_list(self._last), *self._sources]
        found = self._heads.read(keys, entries=self._batch, max_bytes=MOST_BYTES)
        return TakenEntries(None, [held for _, held in found], [key for key, _ in found])


def _held(size: int, entry: bytes) -> ListEntry:
    """Read an entry of our list. One that was cut may come from the queue too, where a dead worker's list was put."""
    if entry.startswith(CUT):
        told, _, head = entry[len(CUT) :].partition(b":")
        # No more digits than a size has: anyone may write such an entry.
        if told.isdigit() and len(told) <= 12:
            return ListEntry(int(told), head)
    return ListEntry(size, entry)


def _is_name(name: bytes) -> bool:
    # A worker's id is a UUID; tests and people write shorter ones.
    return len(name) <= 64 and name.isascii()
