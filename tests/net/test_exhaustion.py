"""If this process has no file descriptor for a connection, the failure is not the peer's."""

import asyncio
import errno
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.net.raw_server import Peer, RawServer
from tests.net.wire import WIRE, answer, endpoint
from tests.webhooks.net.receiver import BODY, LOOPBACK, SIGNED, hook, outcome, reply
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, failure
from worker.core.lifecycle import HOLD, Outcome
from worker.jobs.core.endpoint_health import ALONE, CallSign, sign_of
from worker.jobs.core.retry import AttemptBudget, JobDecision, decide
from worker.jobs.net.call import TransportKind, call, open_client
from worker.jobs.net.progress import Reply
from worker.net.exceptions import is_exhaustion
from worker.net.tls import Contexts
from worker.webhooks.net.resolver import Resolver
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no more files, sockets or pipes; garbage collection, which could close some, is off."""
    gc.collect()
    gc.disable()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.enable()


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(answer())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "name.invalid"])
def test_a_call_without_a_descriptor_is_ours_and_blames_no_endpoint(kind: TransportKind, host: str) -> None:
    async def run(other: Endpoint, where: Endpoint) -> Reply:
        async with open_client(where, kind=kind) as client:
            assert (await call(client, other, WIRE)).failure is None  # the libraries finish their imports here
            with no_descriptors():
                return await call(client, where, WIRE)

    with RawServer(serves) as first, RawServer(serves) as server:
        found = asyncio.run(run(endpoint(first.url), endpoint(f"http://{host}:{server.port}/"))).failure
        assert server.connections == 0
    assert found is not None
    assert (found.code, found.billed, found.trouble) == (ErrorCode.out_of_resources, "no", "job")
    assert sign_of(found, timeout_s=1.0, total_s=1.0) is CallSign.silent


def test_a_webhook_without_a_descriptor_is_ours_and_spends_no_attempt() -> None:
    def accepts(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply())

    async def run(url: str) -> tuple[str | None, int | None, bool]:
        async with WebhookClient(LOOPBACK, names=Resolver()) as client:
            with no_descriptors():
                return outcome(await send(client, WebhookRequest(url, BODY, SIGNED, 10.0)))

    with RawServer(accepts) as server:
        assert asyncio.run(run(hook(server))) == ("out_of_resources", None, False)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
def test_every_want_of_this_machine_is_ours(number: int) -> None:
    assert is_exhaustion([OSError(number, "")])


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET, errno.EACCES])
def test_errors_of_the_network_are_not_ours(number: int) -> None:
    assert not is_exhaustion([OSError(number, "")])


def test_a_job_waits_for_a_descriptor_and_spends_nothing_even_its_only_attempt() -> None:
    budget = AttemptBudget(used=1, max_attempts=1, held=1, refusals=0, left_s=60.0)
    step = decide(failure(ErrorCode.out_of_resources, sent=False), budget, verdict=ALONE, sent=False, jitter=1.0)
    assert step == JobDecision(HOLD, Outcome.failed, counts=False, delay_s=0.5, waiting_for="retry")


def test_endpoints_with_equal_tls_settings_share_one_context(ca_file: str) -> None:
    contexts = Contexts()
    public = [contexts.of(endpoint(f"https://{number}.example.com/")) for number in range(112)]
    private = [contexts.of(endpoint(f"https://{number}.example.com/", ca_file=ca_file)) for number in range(2)]

    assert len({*public}) == len({*private}) == 1
    assert public[0] is not private[0]


def test_an_endpoint_without_tls_reads_no_certificates() -> None:
    plain = Contexts().of(endpoint("http://127.0.0.1:8000/"))
    through = Contexts().of(endpoint("http://127.0.0.1:8000/", proxy="https://proxy.example.com"))

    assert plain.get_ca_certs() == []
    assert through.get_ca_certs()
