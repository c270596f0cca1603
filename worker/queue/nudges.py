"""The nudges in Redis: the format of an entry of `chat.run` or `webhooks`, and functions to push and read entries.

A nudge means "this row may start", nothing else. It may be lost, late or doubled without harm. Our nudges are short,
`<id>.<attempt number>`. A Celery message with the id as its only argument is also valid. Any other entry is a mistake
and moves to the list REJECTED, with its bytes. This module does not import Celery.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.core.dead_letter import DeadLetter, read_uuid
from worker.core.faults import describe_value
from worker.queue.connections import LONGEST_REPLY
from worker.queue.envelope import decode
from worker.queue.list_heads import SHOW
from worker.queue.sentinel import pool_of

# The only task name that each queue accepts.
TASKS: Final[Mapping[str, str]] = {"chat.run": "chat.run", "webhooks": "webhook.deliver"}
REJECTED: Final = "afterword:rejected"
PRIORITIES: Final = range(10)
# At most so many bytes of a rejected entry are kept, with its true size.
REJECTED_BYTES: Final = 1024 * 1024
# A nudge has 40 bytes, a Celery message about 900.
ENTRY_BYTES: Final = 64 * 1024
LONGEST_MESSAGE: Final = 1024
WINDOW_ENTRIES: Final = 50_000
ID_CHARACTERS: Final = 255

# kombu's separator between queue name and priority.
_SEPARATOR = "\x06\x16"
_NUDGE = re.compile(rb"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.[0-9]{1,10}")

# KEYS: a queue's lists, best first. ARGV: longest, head, most entries, most bytes. Returns size and bytes of the oldest
# entries, best list first.
POP: Final = (
    SHOW
    + """
local wanted, left = tonumber(ARGV[3]), tonumber(ARGV[4])
for _, key in ipairs(KEYS) do
  while wanted > 0 and left > 0 do
    local entry = redis.call('RPOP', key)
    if not entry then break end
    wanted, left = wanted - 1, left - #entry
    show(entry)
  end
end
return shown
"""
)

# KEYS: a queue's lists. ARGV: longest, entries. Returns the oldest entries of each list, long entries cut.
_WINDOW = """
local lists = {}
for place, key in ipairs(KEYS) do
  local entries = redis.call('LRANGE', key, -ARGV[2], -1)
  for i, entry in ipairs(entries) do
    if #entry > tonumber(ARGV[1]) then entries[i] = string.sub(entry, 1, ARGV[1]) end
  end
  lists[place] = entries
end
return lists
"""

# KEYS: a queue's lists, best first. ARGV: room, then priority, entry, priority, entry… Returns the number pushed.
_PUSH = """
local room, pushed = tonumber(ARGV[1]), 0
for _, key in ipairs(KEYS) do room = room - redis.call('LLEN', key) end
for i = 2, #ARGV, 2 do
  if pushed >= room then break end
  redis.call('LPUSH', KEYS[tonumber(ARGV[i]) + 1], ARGV[i + 1])
  pushed = pushed + 1
end
return pushed
"""


@dataclass(frozen=True, slots=True)
class Nudge:
    """A valid entry: the row's id, its Celery id, and the options of its producer that have no effect."""

    row_id: str
    celery_id: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An invalid entry: `reason` is a short code, `message` a sentence, `size` the size before `entry` was cut."""

    queue: str
    reason: str
    message: str
    entry: bytes
    size: int

    def as_json(self) -> bytes:
        """Return the form in the list REJECTED: `{"queue", "reason", "message", "size", "entry": base64}`."""
        entry = base64.b64encode(self.entry[:REJECTED_BYTES]).decode()
        facts = {"queue": self.queue, "reason": self.reason, "message": self.message, "size": self.size}
        return json.dumps({**facts, "entry": entry}).encode()


def connect(url: str, *, longest: int = LONGEST_REPLY) -> "Redis":
    """Return a client. If the server is silent, every command raises an error within seconds.

    `longest`: the most bytes of a reply.
    """
    pool = pool_of(
        url,
        longest=longest,
        socket_timeout=5.0,
        socket_connect_timeout=3.0,
        health_check_interval=5,
        # No retry: a repeated pop would lose the entries of the first pop.
        retry=Retry(NoBackoff(), 0),
        client_name="afterword",
    )
    return Redis.from_pool(pool)


def priority_list(queue: str, priority: int) -> str:
    """Return kombu's name of the Redis list for `priority` 0 (first) to 9."""
    return f"{queue}{_SEPARATOR}{priority}" if priority else queue


def priority_lists(queue: str) -> list[str]:
    """Return all ten lists of a queue, best first."""
    return [priority_list(queue, priority) for priority in PRIORITIES]


def nudge(row_id: str, attempt: int) -> bytes:
    """Return the entry, also the Celery id, for an attempt of a job or delivery; `row_id` is a lower-case UUID."""
    return f"{row_id}.{attempt}".encode("ascii")


def job_of(celery_id: str) -> str | None:
    """Return the row id in the Celery id of a nudge; None for the id of another message."""
    return celery_id.partition(".")[0] if _NUDGE.fullmatch(celery_id.encode("utf-8", "replace")) else None


def push_nudges(redis: "Redis", queue: str, nudges: Iterable[tuple[int, bytes]], *, room: int) -> int:
    """Push (priority, entry) pairs, in order, while the queue's lists hold fewer than `room`; return the number pushed.

    The push is one atomic script. Raises RedisError, also if Redis is out of memory.
    """
    pairs: list[Any] = [part for pair in nudges for part in pair]
    return int(redis.register_script(_PUSH)(keys=priority_lists(queue), args=[room, *pairs])) if pairs else 0


def push_first(redis: "Redis", queue: str, entry: bytes) -> None:
    """Push an entry to the place where it is popped next. Raises RedisError."""
    redis.rpush(priority_list(queue, PRIORITIES[0]), entry)


def read_window(redis: "Redis", queue: str) -> dict[bytes, int]:
    """Return the entries in the queue's lists, also foreign entries, each with its best priority.

    Reads the oldest WINDOW_ENTRIES of each list, more than a window can have. A long entry is foreign and is cut.
    Raises RedisError.
    """
    lists = redis.register_script(_WINDOW)(keys=priority_lists(queue), args=[LONGEST_MESSAGE, WINDOW_ENTRIES])
    by_priority = list(zip(PRIORITIES, lists, strict=True))
    return {entry: priority for priority, entries in reversed(by_priority) for entry in entries}


def read(queue: str, entry: bytes, size: int | None = None) -> Nudge | RejectedEntry:
    """Read any entry of `queue`. `size`: the size of the whole entry, if `entry` is only its head."""
    size = len(entry) if size is None else size
    if size > ENTRY_BYTES:
        message = f"The entry has {size} bytes; allowed are {ENTRY_BYTES}."
        return RejectedEntry(queue, "too_large", message, entry, size)
    if match := _NUDGE.fullmatch(entry):
        return Nudge(match[1].decode("ascii"), entry.decode("ascii"))
    envelope = decode(entry, max_bytes=ENTRY_BYTES)
    if isinstance(envelope, DeadLetter):
        return RejectedEntry(queue, envelope.reason, envelope.message, entry, size)
    if envelope.task != TASKS[queue]:
        message = f"The task is {describe_value(envelope.task)}; this queue takes {TASKS[queue]} only."
        return RejectedEntry(queue, "unknown_task", message, entry, size)
    if not envelope.id or len(envelope.id) > ID_CHARACTERS:
        message = f"The message has no task id of 1 to {ID_CHARACTERS} characters; send it in headers.id."
        return RejectedEntry(queue, "no_id", message, entry, size)
    row_id = _uuid(envelope.arguments_text)
    if row_id is None:
        return RejectedEntry(queue, "bad_arguments", "The argument is no UUID; send args [id].", entry, size)
    return Nudge(row_id, envelope.id, envelope.ignored)


def _uuid(text: str) -> str | None:
    try:
        return read_uuid(json.loads(text))
    except (ValueError, RecursionError):
        return None
