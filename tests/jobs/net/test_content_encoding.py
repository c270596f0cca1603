"""Content encodings are decoded in bounded steps, in any pieces; unknown and damaged encodings get an error by name."""

import gzip
import zlib

import pytest

from worker.jobs.net.content_encoding import STEP_BYTES, Damaged, decoder

TEXT = b"data: hello\n\n" * 5000


BARE = zlib.compress(TEXT, wbits=-15)
GZIP = gzip.compress(TEXT, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "wire"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", GZIP),
        ("GZIP", GZIP),
        ("x-gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("identity, gzip", GZIP),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, wbits=9)),
        ("deflate", BARE),
        ("gzip", GZIP + b"\0" * 8),
        # Bytes that contradict the label.
        ("gzip", TEXT),
        ("deflate", TEXT),
        ("br", TEXT),
        ("gzip, gzip", TEXT),
        ("utf-8", TEXT),
        ("", GZIP),
        ("", zlib.compress(TEXT, 1)),
        ("", zlib.compress(TEXT, 9)),
        ("br", GZIP),
        ("deflate", GZIP),
        ("gzip", zlib.compress(TEXT)),
        ("gzip, gzip", GZIP),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0)),
        ("", gzip.compress(GZIP, mtime=0)),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_any_pieces_give_the_same_text(encoding: str, wire: bytes, size: int) -> None:
    read = decoder(encoding)
    parts = [part for start in range(0, len(wire), size) for part in read.feed(wire[start : start + size])]
    assert b"".join(parts) == TEXT
    assert all(0 < len(part) <= STEP_BYTES for part in parts)


@pytest.mark.parametrize("first", [b"{", b":", b"\n", b"d"])
def test_the_first_byte_of_a_text_waits_for_nothing(first: bytes) -> None:
    assert list(decoder("").feed(first)) == [first]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_unfolds_in_steps(layers: int) -> None:
    bomb = b"\0" * 10_000_000
    for _ in range(layers):
        bomb = gzip.compress(bomb, mtime=0)
    steps = decoder("gzip").feed(bomb)
    assert [len(next(steps)) for _ in range(3)] == [STEP_BYTES] * 3


def test_a_third_layer_stays_packed() -> None:
    assert b"".join(decoder("").feed(gzip.compress(gzip.compress(GZIP, mtime=0), mtime=0))) == GZIP


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip", "compress"])
def test_packed_bytes_that_are_unknown_are_damage(encoding: str) -> None:
    with pytest.raises(Damaged):
        list(decoder(encoding).feed(b"\x1b\x6f\x00\xf8\x8d"))


def test_bytes_that_break_off_within_gzip_are_damage() -> None:
    with pytest.raises(Damaged):
        list(decoder("gzip").feed(GZIP[:30] + b"\xff" * 30))
