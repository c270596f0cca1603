from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pool.workers import Toy
from worker.dev.redis import RedisServer


@pytest.fixture
def toy(redis_server: RedisServer, tmp_path: Path) -> Iterator[Toy]:
    """Yield an empty Redis database and end all worker processes that the test started on it."""
    toy = Toy(redis_server.url, tmp_path)
    toy.redis.flushdb()
    yield toy
    toy.close()
    for child in toy.children:
        assert not {"errand.failed", "nudge.not_delivered"} & set(child.text().split()), child.text()
