"""Slow names delay only their owner's lookups, and a resolver's failures raise nothing but OSError."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from tests.net.raw_server import Peer, RawServer, wait_for
from tests.webhooks.net.receiver import BODY, LOOPBACK, SIGNED, deliver, hook, outcome, reply
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.net.resolver import Resolver, ResolverBusy
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send

T = TypeVar("T")


class Servers:
    """A resolver that answers names beginning with `slow` once `release` is set."""

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
        names = Resolver(servers, threads=5, per_owner=4)
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
        names = Resolver(servers, threads=6, per_owner=4)
        slow = [asyncio.create_task(names.resolve("slow.example", 443, owner=owner)) for owner in "aaaabbbbcccc"]
        await in_flight(servers, 6)
        servers.release.set()
        return len(await asyncio.gather(*slow))

    assert with_servers(story) == 12


def test_an_abandoned_lookup_counts_until_it_returns() -> None:
    async def story(servers: Servers) -> list[str]:
        names = Resolver(servers, threads=1, per_owner=1)
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
    async def story(servers: Servers) -> list[SendResult]:
        with RawServer(serves) as server:
            async with WebhookClient(LOOPBACK, names=Resolver(servers, patience_s=0.4)) as client:

                def to(host: str, owner: str, timeout_s: float) -> Awaitable[SendResult]:
                    return send(client, WebhookRequest(hook(server, host), BODY, SIGNED, timeout_s, owner))

                slow = [to(f"slow{n}.internal", "a", 0.2) for n in range(8)]
                return list(await asyncio.gather(to("quick.internal", "b", 10.0), *slow))

    quick, *slow = with_servers(story)
    assert outcome(quick) == (None, 200, True)
    codes = [outcome(sent)[0] for sent in slow]
    # Four are being looked up; the others wait behind them, and their names stay unknown.
    assert sorted(map(str, codes)) == ["dns_busy"] * 4 + ["dns_timeout"] * 4
    assert not any(sent.sent for sent in slow)


def test_a_lookup_that_never_began_has_its_own_error_and_takes_no_thread() -> None:
    async def story(servers: Servers) -> list[str]:
        names = Resolver(servers, threads=1, patience_s=0.05)
        slow = asyncio.create_task(names.resolve("slow.example", 443, owner="a"))
        await in_flight(servers, 1)
        began: list[str] = []
        with pytest.raises(ResolverBusy):
            await names.resolve("quick.example", 443, owner="b", began=lambda: began.append("b"))
        assert began == []
        servers.release.set()
        await slow
        return await names.resolve("quick.example", 443, owner="b", began=lambda: began.append("b")) + began

    assert with_servers(story) == ["127.0.0.1", "b"]


def test_many_owners_of_silent_names_make_no_receiver_of_another_look_dead() -> None:
    """Eight owners occupy all 32 threads; the ninth owner's name resolves as soon as it gets a thread."""

    async def story(servers: Servers) -> tuple[list[SendResult], SendResult]:
        with RawServer(serves) as server:
            names = Resolver(servers, threads=32, patience_s=0.1)
            async with WebhookClient(LOOPBACK, names=names) as client:

                def to(host: str, owner: str) -> Awaitable[SendResult]:
                    return send(client, WebhookRequest(hook(server, host), BODY, SIGNED, 20.0, owner))

                silent = [asyncio.ensure_future(to("slow.internal", f"owner{n % 8}")) for n in range(32)]
                await in_flight(servers, 32)
                ninth = await to("quick.internal", "ninth")
                servers.release.set()
                return list(await asyncio.gather(*silent)), ninth

    silent, ninth = with_servers(story)
    assert {outcome(sent) for sent in silent} == {(None, 200, True)}
    assert outcome(ninth) == ("dns_busy", None, False)
    assert ninth.dns_ms is None


def test_the_time_a_lookup_waits_for_a_thread_is_not_the_receivers() -> None:
    async def story(servers: Servers) -> SendResult:
        with RawServer(serves) as server:
            names = Resolver(servers, threads=1, patience_s=30.0)
            async with WebhookClient(LOOPBACK, names=names) as client:
                slow = asyncio.create_task(names.resolve("slow.internal", 443, owner="a"))
                await in_flight(servers, 1)
                # The name waits longer than the delivery's whole time limit.
                asyncio.get_running_loop().call_later(1.5, servers.release.set)
                request = WebhookRequest(hook(server, "quick.internal"), BODY, SIGNED, 1.0, "b")
                sent = await send(client, request)
                await slow
                return sent

    sent = with_servers(story)
    assert outcome(sent) == (None, 200, True)
    assert sent.elapsed_s > 1.0
    assert sent.dns_ms is not None
    assert sent.dns_ms < 1000


def no_such_name(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def unreadable(host: str, port: int) -> list[str]:
    raise UnicodeError("label too long")


def empty(host: str, port: int) -> list[str]:
    return []


@pytest.mark.parametrize("resolver", [no_such_name, unreadable, empty])
def test_a_name_without_an_address_is_a_dns_failure(resolver: Callable[[str, int], list[str]]) -> None:
    assert outcome(deliver("http://a.internal/", resolver=resolver)) == ("dns_failed", None, False)
