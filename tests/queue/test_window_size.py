"""The number of nudges that Redis should hold."""

from worker.queue.window_size import LARGEST_WINDOW, WindowSize

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
