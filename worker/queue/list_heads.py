"""Read entries of Redis lists; of an entry that is too large, read only its first bytes."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from redis import Redis

# The start of other scripts. `show(entry)` adds the entry's size and bytes, only the head if longer than ARGV[1].
SHOW: Final = """
local shown, longest, head = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
local function show(entry)
    shown[#shown + 1] = #entry
    shown[#shown + 1] = #entry > longest and string.sub(entry, 1, head) or entry
end
"""

# KEYS: lists. ARGV: longest, head, entries of each, bytes. Returns list number, size, bytes of each, oldest first.
_READ = (
    SHOW
    + """
local left = tonumber(ARGV[4])
for source = 1, #KEYS do
    for place = 1, tonumber(ARGV[3]) do
        local entry = left > 0 and redis.call('LINDEX', KEYS[source], -place)
        if not entry then break end
        left = left - #entry
        shown[#shown + 1] = source
        show(entry)
    end
end
return shown
"""
)

# KEYS: a list. ARGV: size, head, entries. Removes the oldest entry of that size and head.
_REMOVE = """
for place = 1, tonumber(ARGV[3]) do
    local entry = redis.call('LINDEX', KEYS[1], -place)
    if not entry then return 0 end
    if #entry == tonumber(ARGV[1]) and string.sub(entry, 1, #ARGV[2]) == ARGV[2] then
        return redis.call('LREM', KEYS[1], -1, entry)
    end
end
return 0
"""


class ListEntry(NamedTuple):
    """An entry, or the first bytes of a large entry. `size` is the size of the whole entry."""

    size: int
    head: bytes

    @property
    def is_whole(self) -> bool:
        return self.size == len(self.head)


class ListHeads:
    """Reads entries, and removes them by value. Of an entry longer than `longest` bytes, reads only `head` bytes."""

    def __init__(self, redis: Redis, *, longest: int, head: int) -> None:
        self._redis, self._longest, self._head = redis, max(longest, head), head
        self._read, self._remove = redis.register_script(_READ), redis.register_script(_REMOVE)

    def read(self, keys: Sequence[str], *, entries: int, max_bytes: int) -> list[tuple[str, ListEntry]]:
        """Return (list, entry) pairs: at most `entries` of each list, oldest first, until `max_bytes` are read."""
        shown = self._read(keys=list(keys), args=[self._longest, self._head, entries, max_bytes])
        return [(keys[source - 1], ListEntry(*held)) for source, *held in in_groups_of(3, shown)]

    def remove(self, key: str, held: ListEntry, *, entries: int) -> None:
        """Remove the oldest entry equal to `held`; a large entry is searched among the oldest `entries`."""
        if held.is_whole:
            self._redis.lrem(key, -1, cast("str", held.head))
        else:
            self._remove(keys=[key], args=[held.size, held.head, entries])


def in_groups_of(number: int, flat: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the flat reply of a script as tuples of `number` values."""
    return zip(*[iter(flat)] * number, strict=True)
