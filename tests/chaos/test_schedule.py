"""The schedule of faults depends only on its seed, and a run meets every kind before it meets one twice."""

from tests.chaos.schedule import KINDS, draw

GAP_S = (1.0, 4.0)


def test_the_same_seed_draws_the_same_faults() -> None:
    assert draw(7, seconds=300.0, gap_s=GAP_S) == draw(7, seconds=300.0, gap_s=GAP_S)
    assert draw(7, seconds=300.0, gap_s=GAP_S) != draw(8, seconds=300.0, gap_s=GAP_S)


def test_every_kind_comes_before_one_comes_again() -> None:
    faults = draw(3, seconds=600.0, gap_s=GAP_S)

    first = [fault.kind.name for fault in faults[: len(KINDS)]]
    assert sorted(first) == sorted(kind.name for kind in KINDS)


def test_all_are_over_when_the_time_is() -> None:
    faults = draw(5, seconds=120.0, gap_s=GAP_S)

    assert faults
    assert all(fault.at_s + fault.lasts_s <= 120.0 for fault in faults)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
