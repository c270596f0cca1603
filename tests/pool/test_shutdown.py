"""The ways a worker ends: warm shutdown, cold shutdown, both, and its own watchdog."""

import signal

import pytest

from tests.pool.workers import Toy, until
from worker.pool.event_loop import BLOCKED_EXIT_CODE


def test_a_warm_shutdown_lets_calls_finish_and_takes_no_more(toy: Toy) -> None:
    child = toy.start(SLOTS="2", DRAIN="30", CLEANUP="1")
    toy.push(*(toy.row(do="gate", gate="gate") for _ in range(2)))
    toy.await_events("start", 2)
    toy.push(toy.row())

    child.signal(signal.SIGTERM)
    until(lambda: "pool.draining" in child.text(), what="the drain")
    toy.open("gate")

    assert child.wait() == 0
    assert len(toy.events("end")) == len(toy.events("start")) == 2
    assert toy.redis.llen("chat.run\x06\x165") == 1
    assert toy.log()[-1] == {"event": "cleaned up"}


def test_a_warm_shutdown_cancels_late_calls_and_waits_until_their_jobs_are_put_away(toy: Toy) -> None:
    child = toy.start(DRAIN="0.2", SIGNALS="1", CLEANUP="1")
    toy.push(toy.row(do="gate", gate="never", swallow=0.3))
    toy.await_events("start", 1)

    child.signal(signal.SIGTERM)

    assert child.wait() == 0
    assert toy.events("cancelled")[0]["reason"] == "shutdown"
    assert len(toy.events("put away")) == 1
    assert toy.log()[-1] == {"event": "cleaned up"}
    assert toy.events("task_revoked") == []


def test_a_cold_shutdown_cancels_at_once_as_a_shutdown_and_revokes_nothing(toy: Toy) -> None:
    child = toy.start(DRAIN="60", SIGNALS="1")
    toy.push(toy.row(do="gate", gate="never", swallow=0.1), toy.row(do="gate", gate="never"))
    toy.await_events("start", 2)

    child.signal(signal.SIGQUIT)

    child.wait()
    assert [entry["reason"] for entry in toy.events("cancelled")] == ["shutdown", "shutdown"]
    assert len(toy.events("put away")) == 1
    assert toy.events("task_revoked") == []


def test_a_second_signal_turns_a_warm_shutdown_into_a_cold_one(toy: Toy) -> None:
    child = toy.start(DRAIN="60")
    toy.push(toy.row(do="gate", gate="never", swallow=0.1))
    toy.await_events("start", 1)

    child.signal(signal.SIGTERM)
    until(lambda: "pool.draining" in child.text(), what="the drain")
    child.signal(signal.SIGQUIT)

    child.wait()
    assert toy.events("cancelled")[0]["reason"] == "shutdown"
    assert len(toy.events("put away")) == 1


def test_an_idle_worker_ends_at_once(toy: Toy) -> None:
    child = toy.start(DRAIN="60")

    child.signal(signal.SIGTERM)

    assert child.wait() == 0


def test_a_blocked_loop_is_logged_with_its_stack_and_ends_the_process(toy: Toy) -> None:
    child = toy.start(LEASE="1")
    toy.push(toy.row(do="block", seconds=60))

    assert child.wait() == BLOCKED_EXIT_CODE
    text = child.text()
    assert "loop.blocked" in text
    assert "in play" in text


def test_a_process_that_was_stopped_as_a_whole_is_not_taken_for_blocked(toy: Toy) -> None:
    child = toy.start(LEASE="1")
    toy.push(toy.row(do="gate", gate="gate"))
    toy.await_events("start", 1)

    child.signal(signal.SIGSTOP)
    with pytest.raises(AssertionError):
        until(lambda: False, seconds=2)
    child.signal(signal.SIGCONT)

    toy.open("gate")
    toy.await_events("end", 1)
    assert not child.ended()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-P", "threads"], "this worker runs on its own pool only"),
        (["-P", "solo"], "this worker runs on its own pool only"),
        (["--autoscale", "10,2"], "--autoscale is"),
        (["--time-limit", "5"], "the hard time limit is 5.0 s"),
    ],
)
def test_impossible_pool_options_are_refused_at_start_in_one_sentence(
    toy: Toy, arguments: list[str], sentence: str
) -> None:
    child = toy.start(*arguments, ready=False)

    assert child.wait() == 1
    assert sentence in child.text()
    assert "Traceback" not in child.text()


def test_naming_the_default_pool_means_ours(toy: Toy) -> None:
    toy.start("-P", "prefork")
    toy.push(toy.row())

    toy.await_events("end", 1)
