"""The window on a queue reads as many entries as slots are free, in the hub's turns, and loses none when it closes."""

from collections.abc import Callable, Iterator

import pytest
from kombu.asynchronous import Hub
from redis import Redis

from tests.pool.workers import until
from tests.queue.entries import ROW
from worker.queue.nudges import Nudge, connect, nudge, push_nudges, read_window
from worker.queue.reader import Window


class Slots:
    """Free slots as the test sets them; callbacks given to `soon` run in the hub's next turn."""

    def __init__(self, hub: Hub) -> None:
        self.count = 1
        self._hub = hub

    def free(self, queue: str) -> int:
        return self.count

    def soon(self, callback: Callable[[], None]) -> None:
        self._hub.call_soon(callback)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.call_repeatedly(0.01, lambda: None)  # the hub wakes up at least every 10 ms
    yield hub
    hub.close()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as redis:
        yield redis


@pytest.fixture
def slots(hub: Hub) -> Slots:
    return Slots(hub)


@pytest.fixture
def window(redis: Redis, hub: Hub, slots: Slots) -> Iterator[Window]:
    window = Window("chat.run", redis, hub=hub, slots=slots)
    yield window
    window.close()


@pytest.fixture
def got(slots: Slots) -> list[Nudge]:
    return []


def push(redis: Redis, *attempts: int) -> None:
    push_nudges(redis, "chat.run", [(5, nudge(ROW, attempt)) for attempt in attempts], room=1000)


def turn_until(hub: Hub, condition: Callable[[], object]) -> None:
    until(lambda: (hub.run_once(), condition())[1])


def blocked(redis: Redis) -> int:
    return int(redis.info("clients")["blocked_clients"])


def test_the_doorbell_delivers_later_entries(redis: Redis, hub: Hub, window: Window, got: list[Nudge]) -> None:
    window.open(got.append)
    turn_until(hub, lambda: blocked(redis) == 1)

    push(redis, 1)

    turn_until(hub, lambda: got)
    assert got == [Nudge(ROW, f"{ROW}.1")]


def test_without_a_free_slot_nothing_is_asked(
    redis: Redis, hub: Hub, window: Window, slots: Slots, got: list[Nudge]
) -> None:
    slots.count = 0
    push(redis, 1)
    window.open(got.append)
    for _ in range(20):
        hub.run_once()
    assert got == []
    assert blocked(redis) == 0

    slots.count = 1
    turn_until(hub, lambda: got)


def test_no_more_is_taken_than_there_are_slots(
    redis: Redis, hub: Hub, window: Window, slots: Slots, got: list[Nudge]
) -> None:
    slots.count = 3

    def take(one: Nudge) -> None:
        got.append(one)
        slots.count -= 1

    push(redis, *range(1, 11))
    window.open(take)
    for _ in range(20):
        hub.run_once()

    assert len(got) == 3
    assert len(read_window(redis, "chat.run")) == 7


def test_an_entry_from_the_doorbell_during_a_pause_is_delivered_after_it(
    redis: Redis, hub: Hub, window: Window, got: list[Nudge]
) -> None:
    window.open(lambda _: pytest.fail("the first window delivered the entry"))
    turn_until(hub, lambda: blocked(redis) == 1)

    window.pause()
    hub.reset()
    push(redis, 1)
    until(lambda: blocked(redis) == 0)
    hub.run_once()
    window.open(got.append)

    turn_until(hub, lambda: got)
    assert got == [Nudge(ROW, f"{ROW}.1")]


def test_an_entry_from_the_doorbell_is_put_back_at_the_close(
    redis: Redis, hub: Hub, window: Window, got: list[Nudge]
) -> None:
    window.open(got.append)
    turn_until(hub, lambda: blocked(redis) == 1)
    push(redis, 1)
    until(lambda: blocked(redis) == 0)

    window.close()

    assert got == []
    assert read_window(redis, "chat.run").keys() == {nudge(ROW, 1)}


def test_a_closed_window_takes_nothing_however_it_is_called(
    redis: Redis, hub: Hub, window: Window, got: list[Nudge]
) -> None:
    window.open(got.append)
    turn_until(hub, lambda: blocked(redis) == 1)
    window.close()
    push(redis, 1)

    window.tick()
    hub.run_once()

    assert got == []
    assert len(read_window(redis, "chat.run")) == 1


def test_a_key_of_the_wrong_kind_is_no_end(redis: Redis, hub: Hub, window: Window, got: list[Nudge]) -> None:
    redis.set("chat.run", "not a list")
    window.open(got.append)
    for _ in range(10):
        hub.run_once()

    redis.delete("chat.run")
    push(redis, 1)

    turn_until(hub, lambda: got)
