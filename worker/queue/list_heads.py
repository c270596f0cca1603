"""Entries of Redis lists, of which only the head leaves Redis where they are too large to be read."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from redis import Redis

# For other scripts: `show(entry)` adds its size, and the whole of it or (if it is longer than ARGV[1]) its head.
SHOW: Final = """
local shown, longest, head = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
local function show(entry)
    shown[#shown + 1] = #entry
    shown[#shown + 1] = #entry > longest and string.sub(entry, 1, head) or entry
end
"""

# KEYS: lists. ARGV: longest, head, entries of each, bytes. Returns the number of its list before each, oldest first.
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
    """An entry: its bytes, or the first of them where it is too large to be read; `size` is its own."""

    size: int
    head: bytes

    @property
    def is_whole(self) -> bool:
        return self.size == len(self.head)


class ListHeads:
    """Reads and removes entries by value. Of an entry of more than `longest` bytes, `head` bytes are read."""

    def __init__(self, redis: Redis, *, longest: int, head: int) -> None:
        self._redis, self._longest, self._head = redis, max(longest, head), head
        self._read, self._remove = redis.register_script(_READ), redis.register_script(_REMOVE)

    def read(self, keys: Sequence[str], *, entries: int, max_bytes: int) -> list[tuple[str, ListEntry]]:
        """Return the oldest entries with their lists: of each list so many, and none after `max_bytes`."""
        shown = self._read(keys=list(keys), args=[self._longest, self._head, entries, max_bytes])
        return [(keys[source - 1], ListEntry(*held)) for source, *held in by(3, shown)]

    def remove(self, key: str, held: ListEntry, *, entries: int) -> None:
        """Remove the oldest entry that is this one; a large one is looked for among the oldest `entries`."""
        if held.is_whole:
            self._redis.lrem(key, -1, cast("str", held.head))
        else:
            self._remove(keys=[key], args=[held.size, held.head, entries])


def by(number: int, flat: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield so many values at a time of what a script returned in one row."""
    return zip(*[iter(flat)] * number, strict=True)
