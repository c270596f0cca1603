"""The largest entry that is read, and the dead letter for a larger entry."""

from worker.jobs.core.entry_size import HEAD_BYTES, is_cut, too_large
from worker.jobs.core.message import most_bytes


def test_a_job_of_the_largest_request_is_read_in_base64_and_as_json_inside_json() -> None:
    for limit in (1024, 16 * 1024 * 1024):
        assert most_bytes(limit) > limit * 4 / 3 + 1024
        assert most_bytes(limit) >= 2 * limit
        # The kept head of an unread entry is smaller than the smallest limit.
        assert most_bytes(limit) > HEAD_BYTES


def test_a_letter_of_an_entry_too_large_says_size_limit_and_remedy() -> None:
    letter = too_large(550_000_000, max_request_bytes=1000, id="a")

    assert (letter.reason, letter.id) == ("too_large", "a")
    for words in ("550000000 bytes", "67536", "1000", "AFTERWORD_MAX_REQUEST_BYTES", "first 65536 bytes", "by URL"):
        assert words in letter.message


def test_only_the_head_of_an_entry_is_cut() -> None:
    assert is_cut("too_large", HEAD_BYTES)
    assert not is_cut("too_large", HEAD_BYTES + 1)
    assert not is_cut("not_json", HEAD_BYTES)
