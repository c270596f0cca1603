"""Slow names stall their owner's lookups, not another's; nothing a resolver does raises anything but OSError."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from tests.net.raw_server import Peer, RawServer, wait_for
from tests.net.receiver import BODY, LOOPBACK, SIGNED, deliver, hook, outcome, reply
from worker.core.delivery import Sent
from worker.net.names import Names
from worker.net.webhook import WebhookClient, WebhookRequest, send

T = TypeVar("T")


class Servers:
    """A resolver whose names that begin with `slow` are answered when `release` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> list[str]:
        with self._lock:
            self.running += 1
        if host.startswith("slow"):
            self.release.wait(30)
        with self._lock:
            self.running -= 1
        return ["127.0.0.1"]


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(reply())


def with_servers(story: Callable[[Servers], Coroutine[Any, Any, T]]) -> T:
    servers = Servers()
    try:
        return asyncio.run(story(servers))
    finally:
        servers.release.set()


async def in_flight(servers: Servers, count: int) -> None:
    await asyncio.to_thread(wait_for, lambda: servers.running == count, f"{count} running lookups")


def test_one_owners_slow_names_leave_the_others_their_threads() -> None:
    async def story(servers: Servers) -> list[str]:
        names = Names(servers, threads=5, per_owner=4)
        slow = [asyncio.create_task(names.resolve(f"slow{n}.example", 443, owner="a")) for n in range(20)]
        await in_flight(servers, 4)
        found = await names.resolve("quick.example", 443, owner="b")
        assert servers.running == 4
        servers.release.set()
        await asyncio.gather(*slow)
        return found

    assert with_servers(story) == ["127.0.0.1"]


def test_all_owners_together_have_so_many_threads_and_no_more() -> None:
    async def story(servers: Servers) -> int:
        names = Names(servers, threads=6, per_owner=4)
        slow = [asyncio.create_task(names.resolve("slow.example", 443, owner=owner)) for owner in "aaaabbbbcccc"]
        await in_flight(servers, 6)
        servers.release.set()
        return len(await asyncio.gather(*slow))

    assert with_servers(story) == 12


def test_an_abandoned_lookup_counts_until_it_returns() -> None:
    async def story(servers: Servers) -> list[str]:
        names = Names(servers, threads=1, per_owner=1)
        abandoned = asyncio.create_task(names.resolve("slow.example", 443, owner="a"))
        await in_flight(servers, 1)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        later = asyncio.create_task(names.resolve("quick.example", 443, owner="b"))
        waiting = asyncio.create_task(names.resolve("quick.example", 443, owner="b"))
        await asyncio.sleep(0)
        waiting.cancel()
        assert not later.done()
        servers.release.set()
        return await later

    assert with_servers(story) == ["127.0.0.1"]


def test_a_slow_name_ends_by_its_own_deadline_beside_a_delivery_that_succeeds() -> None:
    async def story(servers: Servers) -> list[Sent]:
        with RawServer(serves) as server:
            async with WebhookClient(LOOPBACK, names=Names(servers)) as client:

                def to(host: str, owner: str, timeout_s: float) -> Awaitable[Sent]:
                    return send(client, WebhookRequest(hook(server, host), BODY, SIGNED, timeout_s, owner))

                slow = [to(f"slow{n}.internal", "a", 0.2) for n in range(8)]
                return list(await asyncio.gather(to("quick.internal", "b", 10.0), *slow))

    quick, *slow = with_servers(story)
    assert outcome(quick) == (None, 200, True)
    assert {outcome(sent) for sent in slow} == {("dns_timeout", None, False)}


def no_such_name(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def unreadable(host: str, port: int) -> list[str]:
    raise UnicodeError("label too long")


def empty(host: str, port: int) -> list[str]:
    return []


@pytest.mark.parametrize("resolver", [no_such_name, unreadable, empty])
def test_a_name_without_an_address_is_a_dns_failure(resolver: Callable[[str, int], list[str]]) -> None:
    assert outcome(deliver("http://a.internal/", resolver=resolver)) == ("dns_failed", None, False)
