"""The number of nudges that Redis should hold."""

import random
from collections.abc import Iterator

import pytest

from worker.queue.window_size import LARGEST_WINDOW, ShortWindow, WindowSize

NONE: frozenset[bytes] = frozenset()


def nudges(first: int, last: int) -> set[bytes]:
    return {str(number).encode() for number in range(first, last)}


def run(pace: WindowSize, *, starts_per_s: int, seconds: int, slots: int = 10) -> int:
    """Return the window after `seconds` ticks while nudges leave at a steady rate and more always wait."""
    pushed, gone, room = 0, 0, 0
    for second in range(seconds):
        gone = min(pushed, gone + starts_per_s) if second else 0
        room = pace.room(nudges(gone, pushed), slots=slots, at=float(second))
        pace.filled(nudges(pushed, gone + room))
        pushed = max(pushed, gone + room)
    return room


def test_the_window_is_twice_the_slots_at_least() -> None:
    assert WindowSize(2.0).room(NONE, slots=50, at=0.0) == 100
    assert WindowSize(2.0).room(NONE, slots=0, at=0.0) == 0


def test_the_window_holds_so_many_seconds_of_starts() -> None:
    assert 190 <= run(WindowSize(2.0), starts_per_s=100, seconds=30) <= 200
    assert 900 <= run(WindowSize(10.0), starts_per_s=100, seconds=60) <= 1000


def test_a_full_window_that_is_found_empty_doubles() -> None:
    pace = WindowSize(2.0)
    assert pace.room(NONE, slots=10, at=0.0) == 20
    pace.filled(nudges(0, 20))

    assert pace.room(NONE, slots=10, at=1.0) == 40


def test_a_window_that_was_not_full_does_not_double() -> None:
    pace = WindowSize(2.0)
    pace.room(NONE, slots=10, at=0.0)
    pace.filled(nudges(0, 3))

    assert pace.room(NONE, slots=10, at=1.0) == 20


def test_the_window_shrinks_when_starts_are_slow_again() -> None:
    pace = WindowSize(2.0)
    run(pace, starts_per_s=500, seconds=20)
    at = 20.0
    for _ in range(20):
        at += 1.0
        room = pace.room(NONE, slots=10, at=at)

    assert room == 21 or room == 20


def test_the_window_has_an_end() -> None:
    assert run(WindowSize(2.0), starts_per_s=100_000, seconds=20) == LARGEST_WINDOW


def ticks(
    pace: ShortWindow, *, slots: int, call_s: float, seconds: float, tick_s: float = 0.25
) -> Iterator[tuple[int, int]]:
    """Yield the nudges ahead of the free slots and the calls in progress, tick by tick, while more jobs always wait."""
    chance = random.Random(1)
    ends: list[float] = []
    standing: list[bytes] = []
    made = 0
    for step in range(int(seconds * 100)):
        at = step / 100
        ends = [end for end in ends if end > at]
        while standing and len(ends) < slots:
            standing.pop(0)
            ends.append(at + call_s * chance.uniform(0.5, 1.5))
        if step % int(tick_s * 100) == 0:
            room = pace.room(set(standing), free=slots - len(ends), in_progress=len(ends), at=at)
            pushed = nudges(made, made + max(0, room - len(standing)))
            made += len(pushed)
            pace.filled(pushed)
            standing += sorted(pushed)
            yield room - (slots - len(ends)), len(ends)


def test_a_short_window_is_the_free_slots_at_first() -> None:
    assert ShortWindow(0.5).room(NONE, free=50, in_progress=0, at=0.0) == 50
    assert ShortWindow(0.5).room(NONE, free=0, in_progress=0, at=0.0) == 0


@pytest.mark.parametrize(
    ("slots", "call_s", "largest"), [(100, 20.0, 10), (100, 2.0, 50), (40, 0.5, 60), (500, 0.2, 1500), (10, 0.05, 120)]
)
def test_a_short_window_keeps_the_slots_busy_and_holds_about_half_a_second_of_starts(
    slots: int, call_s: float, largest: int
) -> None:
    seen = list(ticks(ShortWindow(0.5), slots=slots, call_s=call_s, seconds=60 + 5 * call_s))[-200:]

    assert max(ahead for ahead, _ in seen) <= largest
    assert sum(busy for _, busy in seen) / len(seen) >= 0.9 * slots


def test_the_first_nudges_for_free_slots_are_no_rate() -> None:
    pace = ShortWindow(0.5)
    assert pace.room(NONE, free=100, in_progress=0, at=0.0) == 100
    pace.filled(nudges(0, 100))

    assert pace.room(NONE, free=0, in_progress=100, at=0.25) == 0


def test_a_short_window_that_ran_dry_doubles_its_starts() -> None:
    pace = ShortWindow(0.5)
    pace.room(NONE, free=10, in_progress=0, at=0.0)
    pace.filled(nudges(0, 10))
    rooms = []
    for tick in range(1, 4):
        rooms.append(pace.room(NONE, free=10, in_progress=0, at=tick / 4))
        pace.filled(nudges(100 * tick, 100 * tick + rooms[-1]))

    assert rooms == sorted(rooms)
    assert rooms[2] - 10 >= 2 * (rooms[1] - 10) >= 4 * (rooms[0] - 10) > 0


def test_a_short_window_has_an_end() -> None:
    assert ShortWindow(0.5).room(NONE, free=10**6, in_progress=0, at=0.0) == LARGEST_WINDOW


def test_late_ticks_lengthen_a_short_window_up_to_its_limit() -> None:
    rooms = {}
    for tick_s in (0.25, 0.5, 2.0):
        pace = ShortWindow(0.5, most_s=2.0)
        seen = list(ticks(pace, slots=50, call_s=0.5, seconds=60, tick_s=tick_s))[-10:]
        rooms[tick_s] = max(ahead for ahead, _ in seen)

    assert 40 <= rooms[0.25] <= 75 <= rooms[0.5] <= 140
    assert rooms[2.0] >= 150
