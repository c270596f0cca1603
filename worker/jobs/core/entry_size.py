"""Limits the size of an entry before it is read; of an entry that is too large, only the head is kept."""

from worker.core.dead_letter import DeadLetter
from worker.jobs.core.message import most_bytes

# The length of that head.
HEAD_BYTES = 64 * 1024
TOO_LARGE = "too_large"


def too_large(size: int, *, max_request_bytes: int, id: str | None = None) -> DeadLetter:
    """Return the dead letter of an entry of `size` bytes."""
    limit = most_bytes(max_request_bytes)
    message = (
        f"The entry has {size} bytes; the limit is {limit}, for a request of at most {max_request_bytes}. It was not "
        f"read, and only its first {HEAD_BYTES} bytes are kept. Send large content by URL, or raise "
        "AFTERWORD_MAX_REQUEST_BYTES and submit the job again."
    )
    return DeadLetter(TOO_LARGE, message, id)


def is_cut(reason: str, size: int) -> bool:
    """Return whether a dead letter of `size` bytes is only a head. A whole entry of HEAD_BYTES is never too large."""
    return reason == TOO_LARGE and size == HEAD_BYTES
