"""The Redis side of intake: entries move to this worker's own list and are deleted after the commit.

One Lua script moves them, so no entry is lost between two commands. A dead worker leaves its list behind; the set
OWNERS names it, and the dispatcher returns its entries to the queue. A full Redis allows no moves: entries are then
read in place and removed by value after the commit. If two workers read the same entry, ACCEPT sees a duplicate.

Of an entry that is too large to read, only the head is taken.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from worker.jobs.core.entry_size import HEAD_BYTES
from worker.queue.connections import ReplyTooLong
from worker.queue.keys import INTAKE, OWNERS, is_full, is_wrong_type, own_list, rename_misplaced_keys
from worker.queue.list_heads import SHOW, ListEntry, ListHeads, in_groups_of
from worker.queue.nudges import priority_lists

MOST_BYTES = 8 * 1024 * 1024
DOORBELL_S = 1
CUT = b"afterword:cut:"
OWNERS_AT_ONCE = 1000

# KEYS: our list, the set of owners, then the sources, best priority first. ARGV: longest, head, our id, entries, bytes,
# the mark of a cut entry. Returns the entries of our list, oldest first. Redis needs a second or more to read an entry
# of half a gigabyte; after a timeout we would ask for it again. Our list therefore keeps only its size and head.
_TAKE = (
    SHOW
    + """
redis.call('SADD', KEYS[2], ARGV[3])
local held = redis.call('LRANGE', KEYS[1], 0, -1)
for place = #held, 1, -1 do show(held[place]) end
local left, bytes = tonumber(ARGV[4]) - #held, tonumber(ARGV[5])
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

# KEYS: a worker's list, the source, the set of owners. ARGV: the worker. The oldest entry is next in the queue again.
_GIVE_BACK = """
local moved = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('SREM', KEYS[3], ARGV[1])
return moved
"""


class EntryBatch(NamedTuple):
    """Entries to commit, oldest first. `own` is our list that holds them; None if they are still in `sources`."""

    own: str | None
    entries: list[ListEntry]
    sources: list[str]


class IntakeList:
    """The list of one worker. `worker_id()` returns the id of its lease; it changes when a lease is lost.

    `longest`: of an entry with more bytes, only the head is taken.
    """

    def __init__(self, redis: Redis, worker_id: Callable[[], str], *, batch: int, longest: int = MOST_BYTES) -> None:
        self._redis, self._worker_id, self._batch = redis, worker_id, batch
        self._longest = max(longest, HEAD_BYTES)
        self._sources = priority_lists(INTAKE)
        # BLMOVE watches one list only, so we watch the source that had entries last.
        self._doorbell = self._sources[0]
        self._last_worker_id = ""
        self._take = redis.register_script(_TAKE)
        self._heads = ListHeads(redis, longest=self._longest, head=HEAD_BYTES)
        self._give_back = redis.register_script(_GIVE_BACK)

    def take(self) -> EntryBatch:
        """Return the oldest entries; wait up to a second if there are none. Raises RedisError."""
        worker_id = self._worker_id()
        try:
            if self._last_worker_id not in ("", worker_id):
                self.give_back(self._last_worker_id)
            self._last_worker_id = worker_id
            taken = self._move(worker_id)
            if taken.entries:
                return taken
            # A doorbell: BLMOVE puts the oldest entry back at its place. A move into our list could also happen while
            # this process is frozen, and after a flush OWNERS would not name that list.
            with suppress(ReplyTooLong):  # the script will cut so large an entry
                if self._redis.blmove(self._doorbell, self._doorbell, DOORBELL_S, "RIGHT", "RIGHT") is None:
                    self._watch_another()
            return self._move(worker_id)
        except ResponseError as error:
            if is_wrong_type(error):
                rename_misplaced_keys(self._redis, own_list(worker_id))
            if not is_full(error):
                raise
            return self._read_in_place()

    def done(self, taken: EntryBatch) -> None:
        """Delete committed entries from Redis."""
        if taken.own is not None:
            self._redis.delete(taken.own)
            return
        for entry, source in zip(taken.entries, taken.sources, strict=True):
            self._heads.remove(source, entry, entries=self._batch)

    def give_back(self, owner: str) -> int:
        """Return a worker's entries to the queue; return their number."""
        return int(self._give_back(keys=[own_list(owner), self._sources[0], OWNERS], args=[owner]))

    def owners(self) -> set[str]:
        """Return up to OWNERS_AT_ONCE workers that have a list, dead or alive. Removes foreign members from OWNERS."""
        members = set(cast("list[bytes]", self._redis.srandmember(OWNERS, OWNERS_AT_ONCE)))
        if foreign := {name for name in members if not _is_worker_id(name)}:
            self._redis.srem(OWNERS, *cast("set[str]", foreign))
        return {name.decode() for name in members - foreign}

    def _move(self, worker_id: str) -> EntryBatch:
        keys = [own_list(worker_id), OWNERS, *self._sources]
        reply = self._take(keys=keys, args=[self._longest, HEAD_BYTES, worker_id, self._batch, MOST_BYTES, CUT])
        return EntryBatch(keys[0], [_list_entry(*pair) for pair in in_groups_of(2, reply)], [])

    def _watch_another(self) -> None:
        for source in self._sources:
            if self._redis.llen(source):
                self._doorbell = source
                return

    def _read_in_place(self) -> EntryBatch:
        """Read entries without a move, because Redis is full; `done` then removes them and frees memory."""
        keys = [own_list(self._last_worker_id), *self._sources]
        found = self._heads.read(keys, entries=self._batch, max_bytes=MOST_BYTES)
        return EntryBatch(None, [entry for _, entry in found], [key for key, _ in found])


def _list_entry(size: int, entry: bytes) -> ListEntry:
    """Read an entry of our list. The queue may hold cut entries too, because dead workers' lists return to it."""
    if entry.startswith(CUT):
        full_size, _, head = entry[len(CUT) :].partition(b":")
        # Anyone may write an entry that looks cut, so the digits are limited to those of a real size.
        if full_size.isdigit() and len(full_size) <= 12:
            return ListEntry(int(full_size), head)
    return ListEntry(size, entry)


def _is_worker_id(name: bytes) -> bool:
    # A worker's id is a UUID; tests and people write shorter ones.
    return len(name) <= 64 and name.isascii()
