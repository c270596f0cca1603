"""Messages that cannot become a row, and the reader of their ids. `jobs.store.inbox` stores them as dead letters."""

import re
from dataclasses import dataclass

# Characters kept of an invalid id; the message itself is kept whole.
LONGEST_ID = 255
_GROUPS = re.compile(r"([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that cannot become a row. `reason` is a short code such as `not_json`, `id` the best known id."""

    reason: str
    message: str
    id: str | None


def read_uuid(value: object) -> str | None:
    """Return a UUID as lower-case text with hyphens, None if `value` is not a UUID.

    Two spellings are accepted: 36 characters with hyphens, and 32 hexadecimal digits as from Python's `uuid4().hex`.
    """
    if type(value) is not str or len(value) not in (32, 36):
        return None
    found = _GROUPS.fullmatch(value.lower())
    return "-".join(found.group(1, 3, 4, 5, 6)) if found else None
