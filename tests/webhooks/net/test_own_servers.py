"""Webhooks never reach the servers that this service itself uses, under any policy; all other traffic goes on."""

import asyncio
import socket

import pytest
from sqlalchemy import create_engine

from tests.net.raw_server import Peer, RawServer
from tests.webhooks.net.receiver import BODY, LOOPBACK, SIGNED, hook, names_of, outcome, reply
from worker.core.endpoint import Endpoint
from worker.settings import Settings
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.net.own_servers import OwnServers, Server
from worker.webhooks.net.resolver import LookUp, Resolver
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send
from worker.webhooks.service import own_servers

FORBIDDEN = ("target_forbidden", None, False)
DELIVERED = (None, 200, True)


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(reply())


def sent_to(url: str, own: OwnServers, *resolvers: LookUp) -> SendResult:
    resolver = resolvers[0] if resolvers else names_of()

    async def run() -> SendResult:
        async with WebhookClient(LOOPBACK, names=Resolver(resolver), own=own) as client:
            return await send(client, WebhookRequest(url, BODY, SIGNED))

    return asyncio.run(run())


@pytest.mark.parametrize("is_endpoint", [False, True], ids=["database", "endpoint"])
@pytest.mark.parametrize("ours", ["127.0.0.1", "127.0.0.2", "::1", "own.example"])
def test_a_server_of_ours_on_this_machine_is_not_connected_to(ours: str, is_endpoint: bool) -> None:
    with RawServer(serves) as server:
        address = "127.0.0.1" if ours == "own.example" else ours
        own = OwnServers([Server(ours, server.port, is_endpoint)], lambda host, port: [address])
        assert outcome(sent_to(hook(server), own)) == FORBIDDEN
    assert server.connections == 0


def test_another_name_for_it_is_refused_as_well() -> None:
    with RawServer(serves) as server:
        own = OwnServers([Server("redis.internal", server.port)], names_of(redis_internal=["127.0.0.1"]))
        theirs = names_of(mine_internal=["127.0.0.1"])
        assert outcome(sent_to(hook(server, "mine.internal"), own, theirs)) == FORBIDDEN
    assert server.connections == 0


def test_another_port_of_the_same_machine_is_a_receiver_like_any_other() -> None:
    with RawServer(serves) as server, RawServer(serves) as ours:
        own = OwnServers([Server("127.0.0.1", ours.port)], names_of())
        assert outcome(sent_to(hook(server), own)) == DELIVERED


def test_a_server_is_compared_by_the_current_addresses_of_its_name() -> None:
    answers = [["10.0.0.1"], ["10.0.0.2"]]

    async def story() -> list[tuple[bool, bool]]:
        own = OwnServers([Server("redis.internal", 6379)], lambda host, port: answers[0])
        seen = []
        for _ in range(2):
            own._until_s = min(own._until_s, 1e-9)  # as if it had expired
            await own.renew()
            assert own._renewal is not None
            await own._renewal
            seen.append((own.holds("10.0.0.1", 6379), own.holds("10.0.0.2", 6379)))
            answers.pop(0)
        return seen

    assert asyncio.run(story()) == [(True, False), (False, True)]


def test_moved_servers_are_resolved_again_and_keep_their_addresses_if_that_fails() -> None:
    answers: list[list[Server] | OSError] = [[Server("10.0.0.1", 6379)], OSError(), [Server("10.0.0.2", 6379)]]

    def moving() -> list[Server]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def story() -> list[tuple[bool, bool]]:
        own = OwnServers([Server("127.0.0.1", 26379)], lambda host, port: [host], moving=moving)
        seen = []
        for _ in range(3):
            own._until_s = min(own._until_s, 1e-9)  # as if it had expired
            await own.renew()
            assert own._renewal is not None
            await own._renewal
            seen.append((own.holds("10.0.0.1", 6379), own.holds("10.0.0.2", 6379)))
        return seen

    assert asyncio.run(story()) == [(True, False), (True, False), (False, True)]


def test_a_name_that_resolves_no_more_keeps_its_addresses() -> None:
    answers = [["10.0.0.1"]]

    def failing(host: str, port: int) -> list[str]:
        if answers:
            return answers.pop()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def story() -> bool:
        own = OwnServers([Server("redis.internal", 6379)], failing)
        for _ in range(2):
            await own._look_all_up()
        return own.holds("::ffff:10.0.0.1", 6379)

    assert asyncio.run(story())


def known(server: Server, address: str) -> OwnServers:
    own = OwnServers([server], lambda host, port: [address])
    asyncio.run(own.renew())
    return own


@pytest.mark.parametrize(
    ("address", "port", "held"),
    [
        ("10.0.0.1", 8000, True),
        # An address of a provider, shared with unknown others.
        ("93.184.216.34", 8000, False),
        # An ingress: one address for many names.
        ("10.0.0.1", 443, False),
    ],
    ids=["private", "public", "ingress"],
)
def test_an_endpoint_is_refused_by_address_in_private_space_only(address: str, port: int, held: bool) -> None:
    assert known(Server("llm.internal", port, is_endpoint=True), address).holds(address, port) is held
    assert known(Server("db.internal", port), address).holds(address, port)


def test_an_endpoint_is_refused_by_its_name_everywhere() -> None:
    own = OwnServers([Server("llm.internal", 443, is_endpoint=True)], lambda host, port: ["10.0.0.1"])
    assert outcome(sent_to("https://llm.internal/v1/chat/completions", own)) == FORBIDDEN
    assert not own.is_named("hooks.internal", 443)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql+psycopg://u:p@db.example/x", [Server("db.example", 5432)]),
        ("postgresql+psycopg://u:p@db.example:6432/x", [Server("db.example", 6432)]),
        ("postgresql+psycopg:///x?host=a.example:1&host=b.example:2", [Server("a.example", 1), Server("b.example", 2)]),
        ("postgresql+psycopg:///x?host=/run/postgresql", []),
        ("postgresql+psycopg:///x", []),
        ("sqlite:////nowhere/x.db", []),
    ],
    ids=["plain", "port", "two", "socket", "default socket", "file"],
)
def test_the_databases_servers_are_read_as_its_driver_reads_them(url: str, found: list[Server]) -> None:
    engine = create_engine(url)
    assert own_servers(engine, Settings()) == found
    engine.dispose()


def test_redis_endpoints_and_their_proxies_are_servers_of_ours() -> None:
    engine = create_engine("sqlite://")
    endpoints = {
        "default": Endpoint("default", "https://llm.example/v1/chat/completions"),
        "near": Endpoint("near", "http://10.0.0.1:8000/v1/chat/completions", proxy="http://u:p@proxy.internal:3128"),
    }
    settings = Settings(redis_url="rediss://:geheim@redis.internal/0", endpoints=endpoints)
    assert own_servers(engine, settings) == [
        Server("redis.internal", 6379),
        Server("llm.example", 443, is_endpoint=True),
        Server("10.0.0.1", 8000, is_endpoint=True),
        Server("proxy.internal", 3128, is_endpoint=True),
    ]
    engine.dispose()
