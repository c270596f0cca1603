"""The pauses of the dispatcher: refills between the ticks never delay a tick."""

import time

from worker.jobs.tick_timer import REFILL_S, SHORTEST_S, TickTimer


def test_refills_that_are_asked_for_all_the_time_do_not_delay_the_tick() -> None:
    timer = TickTimer(0.1)
    timer.ticked(0.0, None)
    time.sleep(0.1)
    timer.refill()

    assert not timer.pause(is_waiting=False)


def test_a_refill_comes_before_the_tick_while_jobs_wait() -> None:
    timer = TickTimer(600.0)
    timer.ticked(0.0, None)
    timer.filled(0.0)
    began = time.monotonic()

    assert timer.pause(is_waiting=True)
    assert REFILL_S - SHORTEST_S <= time.monotonic() - began < 10.0
