"""One fake endpoint for all tests of this folder, reset between tests, and a plain client."""

from collections.abc import Iterator

import httpx
import pytest

from worker.dev.fake_endpoint import FakeEndpoint


@pytest.fixture(scope="session")
def shared_fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as fake:
        yield fake


@pytest.fixture
def fake(shared_fake: FakeEndpoint) -> FakeEndpoint:
    shared_fake.reset()
    return shared_fake


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client
