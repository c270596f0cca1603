"""How large an entry of a door may be, and how much of one that is too large is kept. Decided before it is read."""

from worker.core.dead_letter import DeadLetter
from worker.jobs.core.message import most_bytes

# Of an entry that is too large to be read.
HEAD_BYTES = 64 * 1024
TOO_LARGE = "too_large"


def too_large(size: int, *, max_request_bytes: int, id: str | None = None) -> DeadLetter:
    """Return the dead letter of an entry of `size` bytes, of which only the head is kept."""
    limit = most_bytes(max_request_bytes)
    said = (
        f"The entry has {size} bytes; allowed are {limit}, for a request of {max_request_bytes} at most. It was not "
        f"read, and only its first {HEAD_BYTES} bytes are kept. Send large content by URL, or raise "
        "AFTERWORD_MAX_REQUEST_BYTES and submit the job again."
    )
    return DeadLetter(TOO_LARGE, said, id)


def is_cut(reason: str, size: int) -> bool:
    """Say whether a dead letter of `size` bytes is the head of an entry. A whole one is smaller, or was read."""
    return reason == TOO_LARGE and size == HEAD_BYTES
