"""The nudges in Redis: what an entry of `chat.run` or `webhooks` looks like, and how entries get in and out.

A nudge says "this row may start", nothing else; it may be lost, late or doubled without harm. Ours are short,
`<id>.<attempt number>`; a Celery message with the id as its only argument does as well. Everything else in these lists
is somebody's mistake and is moved to a list of its own, with its bytes. Knows nothing of Celery.
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
from worker.core.faults import shown
from worker.queue.connections import LONGEST_REPLY
from worker.queue.envelope import decode
from worker.queue.list_heads import SHOW
from worker.queue.sentinel import pool_of

# The only task each queue may name.
TASKS: Final[Mapping[str, str]] = {"chat.run": "chat.run", "webhooks": "webhook.deliver"}
REJECTED: Final = "afterword:rejected"
PRIORITIES: Final = range(10)
# Of a rejected entry no more than this is kept; its true size is noted beside it.
REJECTED_BYTES: Final = 1024 * 1024
# Nudges are 40 bytes, Celery messages about 900.
ENTRY_BYTES: Final = 64 * 1024
LONGEST_MESSAGE: Final = 1024
WINDOW_ENTRIES: Final = 50_000
ID_CHARACTERS: Final = 255

# Between name and priority, as kombu writes it.
_SEPARATOR = "\x06\x16"
_NUDGE = re.compile(rb"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.[0-9]{1,10}")

# KEYS: a queue's lists, best first. ARGV: longest, head, how many, and of how many bytes before it stops. Returns the
# oldest entries of the best lists, each after its size.
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

# KEYS: a queue's lists. ARGV: longest, entries. Returns each list's oldest entries, of long ones the beginning.
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

# KEYS: a queue's lists, best first. ARGV: room, then priority and entry by turns. Returns how many were pushed.
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
    """An entry that is one: the row's id, the Celery id it goes by, and the options it asked for in vain."""

    row_id: str
    celery_id: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry that is none: `reason` is a short code, `message` a sentence, `size` its own where it was cut."""

    queue: str
    reason: str
    message: str
    entry: bytes
    size: int

    def as_json(self) -> bytes:
        """Return what stands in the list REJECTED: `{"queue", "reason", "message", "size", "entry": base64}`."""
        kept = base64.b64encode(self.entry[:REJECTED_BYTES]).decode()
        told = {"queue": self.queue, "reason": self.reason, "message": self.message, "size": self.size}
        return json.dumps({**told, "entry": kept}).encode()


def connect(url: str, *, longest: int = LONGEST_REPLY) -> "Redis":
    """Return a client whose every command ends within seconds, with an error when the server is silent.

    `longest`: bytes of a reply that is read.
    """
    pool = pool_of(
        url,
        longest=longest,
        socket_timeout=5.0,
        socket_connect_timeout=3.0,
        health_check_interval=5,
        # A repeated pop would lose what the first one took.
        retry=Retry(NoBackoff(), 0),
        client_name="afterword",
    )
    return Redis.from_pool(pool)


def priority_list(queue: str, priority: int) -> str:
    """Return the Redis list for `priority` 0 (first) to 9, named as kombu names it."""
    return f"{queue}{_SEPARATOR}{priority}" if priority else queue


def priority_lists(queue: str) -> list[str]:
    """Return all ten lists of a queue, best first."""
    return [priority_list(queue, priority) for priority in PRIORITIES]


def nudge(row_id: str, attempt: int) -> bytes:
    """Return the entry for one attempt of a job or a delivery; `row_id` is a lower-case UUID. Also its Celery id."""
    return f"{row_id}.{attempt}".encode("ascii")


def job_of(celery_id: str) -> str | None:
    """Return the row's id out of the Celery id of a nudge; None for the id of some other message."""
    return celery_id.partition(".")[0] if _NUDGE.fullmatch(celery_id.encode("utf-8", "replace")) else None


def push_nudges(redis: "Redis", queue: str, nudges: Iterable[tuple[int, bytes]], *, room: int) -> int:
    """Push (priority, entry) pairs, in order, while the queue's lists hold fewer than `room`; return how many.

    One atomic step. Raises RedisError, also when Redis is out of memory.
    """
    pairs: list[Any] = [part for pair in nudges for part in pair]
    return int(redis.register_script(_PUSH)(keys=priority_lists(queue), args=[room, *pairs])) if pairs else 0


def push_first(redis: "Redis", queue: str, entry: bytes) -> None:
    """Push one entry where it is popped next, whatever else stands there. Raises RedisError."""
    redis.rpush(priority_list(queue, PRIORITIES[0]), entry)


def read_window(redis: "Redis", queue: str) -> dict[bytes, int]:
    """Return the entries that stand in the queue's lists, foreign ones too, each with its best priority.

    Of each list the oldest WINDOW_ENTRIES, more than any window has; of a long entry, which is none of ours, the
    beginning. Raises RedisError.
    """
    found = redis.register_script(_WINDOW)(keys=priority_lists(queue), args=[LONGEST_MESSAGE, WINDOW_ENTRIES])
    lists = list(zip(PRIORITIES, found, strict=True))
    return {entry: priority for priority, entries in reversed(lists) for entry in entries}


def read(queue: str, entry: bytes, size: int | None = None) -> Nudge | Rejected:
    """Read an entry of `queue`, whatever its bytes. `size`: its own, if `entry` is only the head of it."""
    size = len(entry) if size is None else size
    if size > ENTRY_BYTES:
        told = f"The entry has {size} bytes; allowed are {ENTRY_BYTES}."
        return Rejected(queue, "too_large", told, entry, size)
    if found := _NUDGE.fullmatch(entry):
        return Nudge(found[1].decode("ascii"), entry.decode("ascii"))
    envelope = decode(entry, max_bytes=ENTRY_BYTES)
    if isinstance(envelope, DeadLetter):
        return Rejected(queue, envelope.reason, envelope.message, entry, size)
    if envelope.task != TASKS[queue]:
        told = f"The task is {shown(envelope.task)}; this queue takes {TASKS[queue]} only."
        return Rejected(queue, "unknown_task", told, entry, size)
    if not envelope.id or len(envelope.id) > ID_CHARACTERS:
        told = f"The message has no task id of 1 to {ID_CHARACTERS} characters; send one in headers.id."
        return Rejected(queue, "no_id", told, entry, size)
    row_id = _uuid(envelope.arguments_text)
    if row_id is None:
        return Rejected(queue, "bad_arguments", "The argument is no UUID; send args [id].", entry, size)
    return Nudge(row_id, envelope.id, envelope.ignored)


def _uuid(text: str) -> str | None:
    try:
        return read_uuid(json.loads(text))
    except (ValueError, RecursionError):
        return None
