"""A message that cannot become a row, and the ids that name it."""

import re
from dataclasses import dataclass

# Of an id that is none, so many characters are kept beside the message's bytes.
LONGEST_ID = 255
_GROUPS = re.compile(r"([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that cannot become a row: `reason` is a short code, `id` the best known id of it."""

    reason: str
    message: str
    id: str | None


def read_uuid(value: object) -> str | None:
    """Return a UUID as lower-case text with hyphens; None if `value` is none.

    Read are the 36 characters with hyphens and the 32 hexadecimal digits of Python's `uuid4().hex`.
    """
    if type(value) is not str or len(value) not in (32, 36):
        return None
    found = _GROUPS.fullmatch(value.lower())
    return "-".join(found.group(1, 3, 4, 5, 6)) if found else None
