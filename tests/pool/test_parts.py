"""The parts of the pool by themselves: hub callbacks, the loop's thread, a call in its greenlet, registered tasks."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.pool.workers import UVLOOP, until
from worker.pool.event_loop import LoopThread
from worker.pool.hub_callbacks import HubCallbacks
from worker.pool.pool import async_task
from worker.pool.running_task import Call, Reason, current, drive, enter, reason, wait_for


@pytest.fixture
def callbacks() -> Iterator[HubCallbacks]:
    callbacks = HubCallbacks()
    yield callbacks
    callbacks.close()


@pytest.fixture(params=[False, pytest.param(True, marks=UVLOOP)], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[LoopThread]:
    loop = LoopThread(block_s=30, uvloop=request.param)
    loop.start()
    yield loop
    loop.stop(patience_s=10)
    assert not loop.is_alive()


def test_callbacks_run_in_order_and_a_failing_one_stops_no_other(callbacks: HubCallbacks) -> None:
    done: list[int] = []
    callbacks.put(done.append, 1)
    callbacks.put(done.index, "missing")
    callbacks.put(done.append, 2)

    callbacks.run()

    assert done == [1, 2]


def test_a_callback_may_add_another(callbacks: HubCallbacks) -> None:
    done: list[int] = []
    callbacks.put(callbacks.put, done.append, 1)

    callbacks.run()

    assert done == [1]


def test_waiting_for_callbacks_ends_when_another_thread_adds_one(callbacks: HubCallbacks) -> None:
    done: list[int] = []
    for number in range(100):
        threading.Thread(target=callbacks.put, args=(done.append, number)).start()
        until(lambda: (callbacks.wait(30), callbacks.run(), done)[2], seconds=30)
    until(lambda: (callbacks.run(), len(done) == 100)[1])


def test_callbacks_after_the_end_do_not_run(callbacks: HubCallbacks) -> None:
    callbacks.close()
    callbacks.put(pytest.fail)


def test_calls_from_many_threads_reach_the_loop_in_each_threads_order(loop: LoopThread) -> None:
    seen: list[tuple[int, int]] = []

    def call(thread: int) -> None:
        for number in range(200):
            loop.call(lambda one: seen.append(one), (thread, number))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(seen) == 1000)

    assert [one for one in seen if one[0] == 3] == [(3, number) for number in range(200)]


def test_the_loop_ticks(loop: LoopThread) -> None:
    before = loop.ticked_at
    until(lambda: loop.ticked_at > before)


def test_a_loop_that_ended_calls_nothing_and_says_nothing() -> None:
    loop = LoopThread(block_s=30)
    loop.start()
    loop.stop(patience_s=10)

    loop.call(pytest.fail)


def test_running_coroutines_are_cancelled_when_the_loop_ends() -> None:
    loop = LoopThread(block_s=30)
    loop.start()
    running = loop.submit(asyncio.Event().wait())

    loop.stop(patience_s=10)

    assert running.cancelled()


def run(target: Any, *, cancel: Reason | None = None, instead: BaseException | None = None) -> Any:
    """Run the synchronous `target` to its end; with `cancel`, cancel it at its first wait."""

    async def main() -> Any:
        call = Call()
        enter(call)
        call.task = asyncio.current_task()
        if cancel is not None:
            asyncio.get_running_loop().call_soon(lambda: call.cancel(cancel, instead=instead))
        return await drive(call, target)

    return asyncio.run(main())


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_synchronous_code_waits_for_coroutines_one_after_the_other() -> None:
    assert run(lambda: wait_for(double(1)) + wait_for(double(2))) == 6


def test_an_exception_of_a_coroutine_is_raised_in_the_code_that_waits_for_it() -> None:
    async def fail() -> None:
        raise ValueError("as told")

    def target() -> str:
        try:
            wait_for(fail())
        except ValueError as error:
            return str(error)
        return "nothing"

    assert run(target) == "as told"


def test_a_coroutine_reads_why_it_is_cancelled() -> None:
    async def body() -> Reason | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return reason()
        return None

    assert run(lambda: wait_for(body()), cancel=Reason.lease_lost) is Reason.lease_lost


def test_an_exception_in_place_of_a_cancellation_is_raised_and_the_task_goes_on() -> None:
    def target() -> int:
        try:
            wait_for(asyncio.Event().wait())
        except TimeoutError:
            return int(wait_for(double(3)))
        return 0

    assert run(target, cancel=Reason.soft_limit, instead=TimeoutError()) == 6


def test_outside_of_a_call_there_is_neither_call_nor_reason() -> None:
    assert current() is None
    assert reason() is None


def test_an_async_task_called_outside_of_the_worker_says_so() -> None:
    with pytest.raises(RuntimeError, match="outside of the worker"):
        wait_for(double(1))


def test_an_async_task_takes_no_hard_limit() -> None:
    with pytest.raises(ValueError, match="time_limit is 30, but async tasks take no hard limit"):
        async_task(Celery("any", set_as_current=False), name="any", time_limit=30)


def test_a_synchronous_function_is_no_async_task() -> None:
    with pytest.raises(TypeError, match="is no async function"):
        async_task(Celery("any", set_as_current=False), name="any")(len)
