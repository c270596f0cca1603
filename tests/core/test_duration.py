"""Durations: `90`, `90s`, `30m`, `6h`, `2d`."""

import math

import pytest

from worker.core.duration import has_unit, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0), ("90", 90), ("0.1", 0.1), ("1e3", 1000), ("-1", -1), ("inf", math.inf),
        ("0s", 0), ("90s", 90), ("30m", 1800), ("6h", 21_600), ("2d", 172_800), ("1.5h", 5400),
        ("999999999d", 999_999_999 * 86_400),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "6 h", "h", "6H", "6hours", "1h30m", "-6h", "6w", "nan", ".5h", "1.h", "٦h", "9999999999d"]
)
def test_other_texts_are_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="write seconds, or a duration such as 90s, 30m, 6h or 2d"):
        seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("6h", True), ("1.5d", True), ("6", False), ("2026", False)])
def test_a_unit_tells_a_duration_from_a_number(text: str, expected: bool) -> None:
    assert has_unit(text) is expected
