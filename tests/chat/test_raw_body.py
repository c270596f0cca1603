"""The raw log: every byte, in little memory."""

import gzip
import tracemalloc
from random import Random

import pytest

from tests.chat.stream_texts import chunk
from worker.chat.raw_body import RawLog

NOISE = Random(1).randbytes(300_000)


def logged(body: bytes, size: int) -> tuple[bytes, str]:
    log = RawLog()
    for at in range(0, len(body), size):
        log.add(body[at : at + size])
    return log.close()


@pytest.mark.parametrize("body", [b"", b"a", b"\0" * 1000, b'{"a":1}', NOISE[:4_000]])
def test_a_small_body_is_kept_as_it_is(body: bytes) -> None:
    assert logged(body, 7) == (body, "identity")


@pytest.mark.parametrize("body", [chunk({"content": "word"}) * 1000, NOISE, b"\0" * 1_000_000])
@pytest.mark.parametrize("size", [100, 4096, 65_536, 10_000_000])
def test_a_large_body_is_kept_in_gzip_members(body: bytes, size: int) -> None:
    kept, encoding = logged(body, size)
    assert encoding == "gzip"
    assert gzip.decompress(kept) == body


def test_an_event_stream_shrinks_and_noise_hardly_grows() -> None:
    words = b"".join(chunk({"content": f"word{number}"}) for number in range(2000))
    assert len(logged(words, 300)[0]) < len(words) / 8
    assert len(logged(NOISE, 300)[0]) < len(NOISE) * 1.01


def test_closing_twice_gives_the_same() -> None:
    log = RawLog()
    log.add(NOISE[:40_000])
    assert log.close() == log.close()


def test_many_open_streams_cost_little_each() -> None:
    pieces = [chunk({"content": f"word{number}"}) for number in range(1000)]
    tracemalloc.start()
    logs = [RawLog() for _ in range(20)]
    for piece in pieces:
        for log in logs:
            log.add(piece)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < len(logs) * sum(map(len, pieces)) / 4
