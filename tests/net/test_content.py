"""Content encodings are undone in bounded steps, whatever the pieces; unknown and damaged ones are named."""

import gzip
import zlib

import pytest

from worker.net.content import STEP_BYTES, Damaged, decoder

TEXT = b"data: hello\n\n" * 5000


@pytest.mark.parametrize(
    ("encoding", "wire"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("GZIP", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("identity, gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, wbits=-15)),
        ("gzip", gzip.compress(TEXT) + b"\0" * 8),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_any_pieces_give_the_same_text(encoding: str, wire: bytes, size: int) -> None:
    read = decoder(encoding)
    parts = [part for start in range(0, len(wire), size) for part in read.feed(wire[start : start + size])]
    assert b"".join(parts) == TEXT
    assert all(parts)


def test_a_bomb_unfolds_in_steps() -> None:
    steps = decoder("gzip").feed(gzip.compress(b"\0" * 10_000_000))
    assert [len(next(steps)) for _ in range(3)] == [STEP_BYTES] * 3


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip"])
def test_an_unknown_encoding_is_damage(encoding: str) -> None:
    with pytest.raises(Damaged):
        decoder(encoding)


# Named: gzip writes the time into its header, and the workers of one run must agree on a test's name.
@pytest.mark.parametrize("wire", [b"<html>", gzip.compress(TEXT)[:30] + b"\xff" * 30], ids=["not gzip", "broken off"])
def test_bytes_that_do_not_follow_the_encoding_are_damage(wire: bytes) -> None:
    with pytest.raises(Damaged):
        list(decoder("gzip").feed(wire))
